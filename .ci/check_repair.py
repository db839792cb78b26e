"""Checks the JSON that the main job writes: its shape, and the few facts that must hold even in a quick run."""

import json
import sys

ARMS = "clean drifted affine random_chunk wrong_chunk full_finetune poisoned kasmina".split()


def check(report):
    arms = report["arms"]
    assert sorted(arms) == sorted(ARMS), f"arms are {sorted(arms)}"
    for name, arm in arms.items():
        low, high = arm["ci95"]
        mean = arm["accuracy_mean"]
        assert 0.0 <= mean <= 1.0 and low <= mean <= high, f"{name}: mean {mean}, interval [{low}, {high}]"
        for count in ("parameters", "updates"):
            assert isinstance(arm[count], (int, float)) and arm[count] >= 0, f"{name}: {count} is {arm[count]!r}"

    accuracy = {name: arm["accuracy_mean"] for name, arm in arms.items()}
    assert report["host_unchanged"] is True, "the host changed"
    assert report["runs"] >= 1, f"runs is {report['runs']}"
    assert report["chosen_chunk_correct"] == report["runs"], f"right chunk in {report['chosen_chunk_correct']} of {report['runs']}"
    assert accuracy["kasmina"] > accuracy["drifted"], f"kasmina {accuracy['kasmina']}, drifted {accuracy['drifted']}"
    assert accuracy["poisoned"] == accuracy["drifted"], f"poisoned {accuracy['poisoned']}, drifted {accuracy['drifted']}"
    assert any(step["to"] == "FOSSILIZED" for step in report["lifecycle"]), "no seed was fossilized"
    return accuracy


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        found = check(json.load(file))
    print("main job:", ", ".join(f"{name} {found[name]:.3f}" for name in ARMS))
