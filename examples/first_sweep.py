# %% [markdown]
# # A first sweep
# Searches a small network for drawn horses, then looks at what came out. In an editor that knows `# %%` (VS Code,
# PyCharm, Spyder) each cell runs by itself; `python examples/first_sweep.py` runs all of them, in about a minute.

# %% What is searched. A sweep file says the same; `sweep("mice.yaml")` reads one.
from posesweep import load, sweep

asked = {
    "name": "first",
    "data": {"synthetic": {"train": 192, "val": 48, "width": 160, "height": 120}},  # yours: {"train": "labels.json"}
    "fixed": {
        **{"model": "tiny", "imgsz": [96, 64], "epochs": 6, "batch": 8, "warmup": 0.5, "ema": 0.95},
        **{"udp": True, "dark": True, "augment": "none", "flip_test": False},
    },
    "parameters": {
        "lr0": {"min": 2e-3, "max": 2e-2, "log": True},
        "sigma": {"min": 0.5, "max": 2.0},
    },
    "baseline": {"lr0": 2e-3, "sigma": 2.0},
    "search": {"trials": 4, "startup_trials": 2},
    "early_terminate": {"type": "asha", "min_epochs": 2, "eta": 3},
}

# %% Run it. Interrupted, the same call goes on; finished, it only loads.
results = sweep(asked, runs="runs")

# %% Every trial, the best first, with what it tried
print(results.ranking[["rank", "trial", "ap", "ap_low", "ap_high", "epochs", "lr0", "sigma", "in_words"]].to_string())

# %% Learning curves, one column a trial
curves = results.curves.pivot(index="epoch", columns="trial", values="value")
print(curves.round(3).to_string())

# %% The winner: its settings, its weights, and how sure one can be of its AP
winner = results.winner
print(f"trial {winner.trial}: {results.trials.loc[winner.trial, 'state']}, lr0 {winner.settings['lr0']:.2g}")
print(f"weights: {winner.weights}")
if winner.ap is not None:
    print(f"AP {winner.ap.value:.3f}, 95 % interval {winner.ap.low:.3f} to {winner.ap.high:.3f}")

# %% The report, and the folder again some other day
print(f"open {results.report()} in a browser")
assert load("runs/first").winner.trial == winner.trial
