"""The work of a plan: parts are rewritten, and examples embedded, by workers here or on Ray."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from headstart.data.common import console
from headstart.data.common.ray_session import (
    chosen_address,
    gpus,
    is_running,
    ray_session,
    room_for,
    share_of_gpu,
    stopped_by_sigterm,
)
from headstart.data.contracts.backbone import Backbone
from headstart.data.contracts.records import begin, sweep
from headstart.data.contracts.store import PartRecord, columns_for
from headstart.data.examples.opening import Source
from headstart.data.storage.folder import Folder
from headstart.data.storage.lock import Held
from headstart.data.workers.nodes import check_shared
from headstart.data.workers.pool import Finished, WorkerPool
from headstart.data.workers.process import Ahead
from headstart.data.workers.processes import Processes
from headstart.data.workers.shards import Shard
from headstart.data.workers.small import SMALL, without_ray
from headstart.extract.ahead import started
from headstart.extract.engines.memory import Memory
from headstart.extract.engines.precision import (
    Measured,
    choose,
    explain,
    measurable,
    measured_here,
    measured_on_ray,
)
from headstart.extract.engines.runtimes import EngineConfig
from headstart.extract.options import ExtractOptions
from headstart.extract.planning.by_file import FileSource
from headstart.extract.planning.plan import Plan
from headstart.extract.worker import EmbeddingJob


@dataclass(frozen=True)
class Done:
    """What a run did: rewritten parts, parts of new embeddings, examples lost with workers."""

    precision: str
    rewritten: tuple[PartRecord, ...] = ()
    embedded: tuple[PartRecord, ...] = ()
    lost: int = 0
    workers: int = 0
    engines: tuple[str, ...] = ()
    first: float | None = None
    remembered: bool = False
    tally: Mapping[str, int] = field(default_factory=dict)

    @property
    def inferences(self) -> int:
        return sum(part.inferences for part in self.embedded) + self.lost


@dataclass(kw_only=True)
class Work:
    """What is to be done, and how.

    Parameters
    ----------
    backbone
        In the precision of the plan.
    ahead
        Processes for a small job that were started before it was planned.
    """

    source: Source | FileSource
    backbone: Backbone
    store: Folder
    todo: Plan
    options: ExtractOptions
    clock: console.Clock
    held: Held
    ahead: Ahead | None = None
    # What is found on the way.
    config: EngineConfig = field(init=False)
    memory: Memory | None = field(init=False, default=None)
    remembered: bool = field(init=False, default=False)
    rewritten: tuple[PartRecord, ...] = field(init=False, default=())
    job: EmbeddingJob = field(init=False)
    finished: list[Finished] = field(init=False, default_factory=list)
    lost: int = field(init=False, default=0)
    size: int = field(init=False, default=0)
    asked: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        options = self.options
        self.config = EngineConfig(self.backbone.spec.precision, options.engine, options.batch_size)

    def done(self) -> Done:
        """Do it; what can be of this machine alone is done, and remembered, without Ray."""
        if not self.todo.left:
            self._update()
            return Done(self.config.precision, self.rewritten)
        if chosen_address(self.options.address) is None and not is_running():
            # What was measured here says nothing of other machines.
            self.memory = Memory(self.backbone.fingerprint, self.config.batch)
        size = without_ray(self.options.address, self.options.workers, self.config.on_gpu)
        if size and self.todo.left <= SMALL:
            self._here(self.ahead if self.ahead and self.ahead.started else started(size))
        else:
            if self.ahead:
                self.ahead.end()
            self._on_ray()
        return self._done()

    def _here(self, ahead: Ahead) -> None:
        """In processes of this machine; what a lost one leaves is done on Ray."""
        size = len(ahead.started)
        with stopped_by_sigterm(), Processes(ahead, self.options.stall_after) as processes:
            self._settle(
                lambda: measured_here(
                    processes,
                    self.backbone,
                    self.config,
                    self.source.folder,
                    self.todo.paths(),
                )
            )
            shards = self._begin(size)
            self.asked = time.monotonic()
            self.finished += processes.run(self.job, self.backbone.content, shards, "embedding")
            self.clock.stage("start workers", processes.started or None)
            self.clock.stage("embed")
        self.size, self.lost = min(size, len(shards)), processes.lost
        if processes.left:
            self._on_ray(processes.left)

    def _on_ray(self, left: list[Shard] | None = None) -> None:
        """On Ray: everything, or what is left."""
        config, options = self.config, self.options
        with ray_session(options.address, options.workers, config.on_gpu) as workers:
            import ray  # only here: the session sets variables that Ray reads when it is imported

            self.clock.stage("start Ray")
            if config.engine is None and (idle := gpus()):
                console.note(
                    f"the cluster's GPUs ({idle}) are left idle: --engine cuda uses them, where "
                    "onnxruntime-gpu is installed"
                )
            if isinstance(self.source, Source):  # one in files was compared before they were listed
                first = self.todo.paths().slice(0, 1).to_pylist()
                check_shared(self.source.folder, first, self.store)
            content = ray.put(self.backbone.content)
            gpu = share_of_gpu(workers) if config.on_gpu else 0
            if left is None:
                self._settle(
                    lambda: measured_on_ray(
                        content, self.backbone, config, self.source.folder, self.todo.paths()
                    )
                )
                left = self._begin(workers, gpu)
            # Without a number, machines that join the cluster get workers as well.
            room = (lambda: room_for(gpu)) if options.workers is None else None
            pool = WorkerPool(self.job, content, workers, options.stall_after, room)
            self.asked = self.asked or time.monotonic()
            self.finished += pool.run(left, "embedding")
            self.clock.stage("start workers", pool.started)
            self.clock.stage("embed")
        self.clock.stage("stop Ray")
        self.size = pool.size
        self.lost += pool.lost

    def _settle(self, measure: Callable[[], list[Measured]]) -> None:
        """Choose the precision if that was asked for, and the engine if it was the fastest before.

        Parameters
        ----------
        measure
            Called if what it returns is not remembered.
        """
        memory, config = self.memory, self.config
        known = memory.found if memory and config.engine is None else None
        if self.options.auto and self.todo.new and measurable(config):
            found = list(known.measured) if known else []
            self.remembered = bool(found)
            found = found or measure()
            if memory and known and not self.remembered:
                memory.add(measured=tuple(found))
            chosen = choose(found)
            for line in explain(found, chosen):
                console.note(line)
            if memory and self.remembered:
                place = console.place(memory.path)
                console.note(f"  as measured here before; remove {place} to measure again")
            self.clock.stage("choose precision")
            self.config = replace(config, precision=chosen.config.precision)
            self.backbone = self.backbone.run_in(chosen.config.precision)
            if known:
                self.config = replace(self.config, faster=chosen.config.engine)
        elif known and (engine := known.fastest.get(config.precision)):
            self.config, self.remembered = replace(config, faster=engine), True

    def _begin(self, workers: int, gpu: float = 0) -> list[Shard]:
        """Begin the run, once the precision is known: the shards to embed."""
        self._update()
        self.job = EmbeddingJob(
            root=self.source.folder,
            spec=self.backbone.spec.preprocessing,
            gpu=gpu,
            backbone=self.backbone.spec,
            fingerprint=self.backbone.fingerprint,
            store=self.store,
            config=self.config,
        )
        return self.todo.shards(workers, self.config.batch)

    def _update(self) -> None:
        """Write down that a run begins, and rewrite the parts that keep only some examples."""
        todo, store = self.todo, self.store
        self.held()
        if not todo.unfinished:
            begin(
                store,
                self.backbone.fingerprint,
                self.source.path,
                inferences=todo.inferences,
                columns=columns_for(self.source.columns, self.backbone.spec.dim),
            )
        # Parts that the manifest lists stay as well: readers use it until the new one is written.
        sweep(store, (*todo.parts, *(todo.manifest.parts if todo.manifest else ())), self.held)
        if not todo.changes:
            return
        rewritten = []
        with console.progress("updating parts", todo.changes) as advance:
            for record in todo.rewritten(store, self.source, self.backbone.fingerprint):
                rewritten.append(record)
                advance(1)
        self.rewritten = tuple(rewritten)
        self.clock.stage("update")

    def _done(self) -> Done:
        parts = [each.value for each in self.finished]
        last = {each.worker: each.value.engines for each in self.finished}  # after its last shard
        engines = tuple(sorted({name for names in last.values() for name in names}))
        firsts = [
            each.started + each.value.first - self.asked  # machines do not share a clock
            for each in self.finished
            if each.value.first is not None
        ]
        if self.memory and self.config.engine is None and len(engines) == 1:
            known = self.memory.found.fastest
            self.memory.add(fastest=known | {self.config.precision: engines[0]})
        return Done(
            precision=self.config.precision,
            rewritten=self.rewritten,
            embedded=tuple(part.record for part in parts),
            lost=self.lost,
            workers=self.size,
            engines=engines,
            first=min(firsts, default=None),
            remembered=self.remembered and engines == (self.config.faster,),
            tally=_added(part.tally for part in parts),
        )


def _added(tallies: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, also those that are 0."""
    total: Counter[str] = Counter()
    for each in tallies:
        total.update(each)
    return dict(total)
