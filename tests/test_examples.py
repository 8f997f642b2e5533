"""The scripts in `examples/` run as they are."""

import runpy

from support.places import ROOT


def test_the_allocator_in_a_control_loop(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(ROOT / "examples" / "deploy.py"))["main"]
    main.__globals__["serve_metrics"] = lambda *_: None
    main(str(ROOT / "training/pretrained/ppo-residual-serverless/seed-0.npz"), "serverless", shadow_steps=5)
    assert "300 steps, 0 fallbacks, 0 errors in the shadow" in capsys.readouterr().out
    assert len((tmp_path / "shadow.jsonl").read_text(encoding="utf-8").splitlines()) == 5
