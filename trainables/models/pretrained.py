"""timm's networks, with ImageNet weights where a sweep says `pretrained: true`."""

from typing import Any

from posesweep.errors import ConfigError


def timm_network(name: str, pretrained: bool, **arguments: Any) -> Any:
    """`timm.create_model(name, pretrained, **arguments)`, for `build` of every network that comes from timm.

    The weights come from the Hugging Face cache (HF_HOME), and are downloaded into it where they are missing. Raises
    ConfigError, with the way out, where timm has no ImageNet weights of `name` or they cannot be fetched.
    """
    import timm  # here, not above: the names of the networks are listed without it

    if pretrained and not timm.is_model_pretrained(name):
        raise ConfigError(
            f"pretrained: timm has no ImageNet weights of {name}; set pretrained: false, or give a checkpoint of it "
            "with weights:"
        )
    try:
        return timm.create_model(name, pretrained=pretrained, **(_cached(name) if pretrained else {}), **arguments)
    except OSError as error:  # what downloads raise: no network, no such file, a refused request
        raise ConfigError(
            f"pretrained: the ImageNet weights of {name} are not on this machine and could not be downloaded "
            f"({type(error).__name__}); set pretrained: false, or put the file in the Hugging Face cache (HF_HOME), "
            "for instance by one run where there is a network"
        ) from error


def _cached(name: str) -> dict[str, Any]:
    """The file of the weights where it is in the cache: with it timm asks no server, which takes most of a minute
    where there is none."""
    from huggingface_hub import try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    source = get_pretrained_cfg(name)
    if source is None or not source.hf_hub_id:
        return {}
    file = try_to_load_from_cache(source.hf_hub_id, source.hf_hub_filename or "model.safetensors")
    return {"pretrained_cfg_overlay": {"file": file}} if isinstance(file, str) else {}
