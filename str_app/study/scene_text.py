"""The recogniser with each kind of gates in its decoder, trained with the recipe of the released weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from str_app.datasets.augmentation import Augmentation
from str_app.datasets.opening import open_source
from str_app.errors import StrAppError
from str_app.models.checkpoint import load_checkpoint
from str_app.models.decoders.attention_decoder import AttentionDecoderConfig
from str_app.models.gates.statistics import watch_gates
from str_app.study.experiment import Metric, Run, load_result, run_key, save_result, summarize
from str_app.study.variants import Variant, count_parameters
from str_app.training.loop import Diverged, Finished, Stopped, new_network, train
from str_app.training.objective import Objective
from str_app.training.run_logger import CPU_SECONDS, read_metrics
from str_app.training.samples import TrainingSamples
from str_app.training.settings import TrainSettings, load_settings


@dataclass(frozen=True)
class SceneText:
    """Reading word crops; an `Experiment`.

    Attributes:
        training: settings and data of the recogniser; each run sets its own seed and gates.
    """

    training: TrainSettings

    name = "scene text"
    metric = Metric("validation word accuracy, %", "higher")

    def run(self, variant: Variant, seed: int, folder: Path, watch: bool) -> Run:
        """Train one variant, or continue its run; see `Experiment.run`."""
        result = folder / f"{variant}-{seed}.json"
        key = run_key(self.settings(), variant, seed)
        stored = load_result(result, key)
        if stored:
            return stored
        refine = variant.options["refine"]
        assert refine is not None
        assert variant.gates != "chrono"
        decoder = self.training.architecture.decoder
        assert isinstance(decoder, AttentionDecoderConfig)
        architecture = replace(self.training.architecture, decoder=replace(decoder, refine=refine))
        settings = replace(self.training, architecture=architecture, seed=seed, threads=1)
        run = Run(self.name, str(variant), seed, count_parameters(new_network(settings)), decoder.hidden_size)
        out = folder / f"{variant}-{seed}"
        state = out / "last.pt"
        if state.exists() and load_settings(out / "settings.json") != settings:
            raise StrAppError(f"{out}: a run with other settings; choose another --out, or delete it")
        try:
            train(settings, out, resume=state.exists())
        except Finished:
            pass  # killed before the result was written
        except Stopped as stopped:
            raise KeyboardInterrupt(stopped.signum) from None
        except Diverged as error:
            run.diverged_at = error.step
        logged = read_metrics(out)
        run.curve = [(each["step"], {self.metric.name: each["accuracy"]}) for each in logged if "accuracy" in each]
        # Lines are missing where the run was interrupted.
        costs = [each[CPU_SECONDS] for each in logged if CPU_SECONDS in each]
        run.seconds = (run.diverged_at or settings.steps) * mean(costs or [0.0])
        if watch and run.diverged_at is None:
            model, _ = load_checkpoint(out / "last.safetensors")
            batch = TrainingSamples(
                [open_source(Path(path)) for path in settings.train],
                settings.weights,
                model.charset,
                model.preprocessing,
                architecture.max_length,
                Augmentation("none"),
                seed,
            ).__getitems__(list(range(64)))[0]
            objective = Objective(model, 0.0, ctc=False, attention=False).eval()
            with watch_gates(model) as watched:
                objective(*batch[:5])[0].backward()
            run.gates, run.gradients = summarize(watched)
        save_result(result, key, run)
        return run

    def settings(self) -> dict[str, Any]:
        """See `Experiment`."""
        return {"task": "SceneText", "training": asdict(self.training)}


def data_sets(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths of the training sets, `root/train/*`, and of the validation sets, `root/validation/*`.

    Raises:
        StrAppError: there are none.
    """
    paths = []
    for part, hint in (("train", "create one with str-app synth --out"), ("validation", "put labelled crops into")):
        sets = sorted(str(path) for path in (root / part).glob("[!.]*") if path.is_dir())
        if not sets:
            raise StrAppError(f"{root / part}: no data set in this folder; {hint} {root / part}/NAME")
        paths.append(tuple(sets))
    return paths[0], paths[1]
