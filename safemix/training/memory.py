"""How much memory a GPU and a host need for a run: pure arithmetic, nothing is loaded.

Letters in the formulas: P parameters of the model, T trained ones, N GPUs, M GPUs of one host,
b bytes of the compute precision, h hidden size, f MLP size, a heads x head size, V vocabulary,
L layers, t tokens of a micro batch.

The parts are summed for three moments of a step, and the largest sum is what a GPU needs:
`loss` (logits and their gradient stand beside all saved activations), `backward` (the layer at
work), and `step` (the optimizer). Model states follow Rajbhandari et al. 2020 (ZeRO) and what
DeepSpeed allocates. Activations follow the counting of Korthikanti et al. 2022 (Reducing
Activation Recomputation), redone for the tensors that transformers' LLaMA saves: float32 norms,
a gated MLP, keys and values repeated to all heads, no stored attention scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from safemix.errors import SettingsError
from safemix.settings import LoraSettings, Precision
from safemix.training.ds_config import AUTO, offloads, zero_stage
from safemix.training.shapes import PRESETS, ModelShape, Tensor, find_shape, lora_tensors

__all__ = ["PRESETS", "Job", "MemoryEstimate", "ModelShape", "Part", "estimate", "find_shape"]

GIB = 2**30
BYTES: Mapping[str, int] = {"bf16": 2, "fp16": 2, "auto": 2, "fp32": 4}
# nf4 with blocks of 64 and doubly quantised scales (Dettmers et al. 2023): 4.127 bits a weight
NF4_BYTES = 4.127 / 8
# Assumptions, not derived: CUDA context with NCCL and cuBLAS workspaces; allocator slack.
CONTEXT_BYTES = 3 * GIB // 2
SLACK_SHARE = 20  # one part in twenty
PROCESS_HOST_BYTES = 3 * GIB

ALWAYS = ("loss", "backward", "step")
Attention = Literal["flash", "sdpa", "eager"]


@dataclass(frozen=True)
class Job:
    """A run, as far as its memory goes. `ds_config` None means plain data parallelism."""

    shape: ModelShape
    ds_config: Mapping[str, Any] | None
    gpus: int
    gpus_per_node: int = 8
    micro_batch_size: int = 1
    sequence_length: int = 1024
    lora: LoraSettings | None = None
    precision: Precision = "bf16"
    gradient_checkpointing: bool = False
    attention: Attention = "sdpa"

    def __post_init__(self) -> None:
        """Refuse counts below one.

        Raises:
            SettingsError: naming the count.
        """
        for name in ("gpus", "gpus_per_node", "micro_batch_size", "sequence_length"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} = {getattr(self, name)} is below 1")

    @property
    def stage(self) -> int:
        """The ZeRO stage; 0 without DeepSpeed."""
        return zero_stage(self.ds_config)

    @property
    def bytes(self) -> int:
        """Bytes of an element in the compute precision."""
        return BYTES[self.precision]

    @property
    def tokens(self) -> int:
        """Tokens of one micro batch."""
        return self.micro_batch_size * self.sequence_length

    @property
    def ranks_here(self) -> int:
        """Processes on one host."""
        return min(self.gpus, self.gpus_per_node)

    @property
    def trained(self) -> tuple[Tensor, ...]:
        """The parameters that have gradients."""
        if self.lora is not None:
            return lora_tensors(self.shape, self.lora)
        return tuple(self.shape.tensors())

    def zero(self, key: str, auto: int, default: int) -> int:
        """A number of zero_optimization: `auto` as the HF Trainer fills it, or DeepSpeed's own."""
        value = ((self.ds_config or {}).get("zero_optimization") or {}).get(key, default)
        return auto if value == AUTO else int(value)


@dataclass(frozen=True)
class Part:
    """One line of the estimate: bytes of a GPU or of a host, and the formula behind them."""

    name: str
    bytes: int
    formula: str
    where: Literal["gpu", "host"] = "gpu"
    phases: tuple[str, ...] = ALWAYS


@dataclass(frozen=True)
class MemoryEstimate:
    """What a run needs, by part. Host bytes are those of one whole host."""

    parts: tuple[Part, ...]
    parameters: int
    trained: int

    def at(self, phase: str, where: str = "gpu") -> int:
        """Bytes at one moment."""
        return sum(p.bytes for p in self.parts if p.where == where and phase in p.phases)

    @property
    def peak_phase(self) -> str:
        """The moment at which a GPU needs most."""
        return max(ALWAYS, key=self.at)

    @property
    def gpu_bytes(self) -> int:
        """What a GPU needs: the largest of the three moments."""
        return self.at(self.peak_phase)

    @property
    def host_bytes(self) -> int:
        """What a host needs: while loading or while training, whichever is more."""
        return max(self.at("load", "host"), self.at("train", "host"))

    def part(self, name: str, where: str = "gpu") -> int:
        """Bytes of the parts of this name; 0 if there are none."""
        return sum(p.bytes for p in self.parts if p.name == name and p.where == where)


def estimate(
    shape: ModelShape, ds_config: Mapping[str, Any] | None, *, gpus: int, **options: Any
) -> MemoryEstimate:
    """Estimate the memory of a run; the options are the fields of `Job`.

    Raises:
        SettingsError: if a count is below one or no module matches the LoRA targets.
    """
    return estimate_job(Job(shape, ds_config, gpus, **options))


def estimate_job(job: Job) -> MemoryEstimate:
    """Estimate the memory of a run."""
    trained = job.trained
    size = sum(tensor.numel for tensor in trained)
    total = job.shape.parameters + (size if job.lora else 0)
    parts = [
        *_weights(job, trained, size, total),
        *_gradients(job, trained, size),
        *_optimizer(job, size),
        *_activations(job),
        *_loss(job),
        Part("context", CONTEXT_BYTES, "CUDA context, NCCL, cuBLAS: 1.5 GiB assumed"),
        *_host(job, size, total),
    ]
    needed = MemoryEstimate(tuple(parts), total, size).gpu_bytes
    slack = Part("allocator slack", needed // SLACK_SHARE, "5 % of the rest, assumed")
    return MemoryEstimate((*parts, slack), total, size)


def _share(count: int, job: Job) -> int:
    return -(-count // job.gpus)


def _weights(job: Job, trained: tuple[Tensor, ...], size: int, total: int) -> Iterator[Part]:
    b = job.bytes
    if job.stage == 3:
        yield from _split_weights(job, trained, total)
        return
    frozen = total - size
    if job.lora and job.lora.quantize == "nf4":
        linear = job.shape.linear_parameters
        held = int(linear * NF4_BYTES) + (frozen - linear) * b
        formula = "4.127 bits a linear weight, b for the rest of P"
    else:
        held, formula = frozen * b, "b (P - T)" if job.lora else ""
    if job.ds_config is None:
        yield Part("weights", held + 4 * size, f"{formula} + 4 T (float32)".removeprefix(" + "))
        if b == 2 and not job.lora:
            yield Part("autocast weights", 2 * size, "2 T, cached by autocast", phases=ALWAYS[:2])
    else:
        yield Part("weights", held + b * size, f"{formula} + b T".removeprefix(" + "))


def _split_weights(job: Job, trained: tuple[Tensor, ...], total: int) -> Iterator[Part]:
    b, h = job.bytes, job.shape.hidden_size
    tensors = [*job.shape.tensors(), *(trained if job.lora else ())]
    threshold = job.zero("stage3_param_persistence_threshold", 10 * h, 100_000)
    kept = sum(t.numel for t in tensors if t.numel < threshold)
    if "param" not in offloads(job.ds_config):
        yield Part("weights", b * _share(total, job), "b P / N")
    yield Part("small parameters", b * kept, "b x parameters under the persistence threshold")
    prefetch = job.zero("stage3_prefetch_bucket_size", int(0.9 * h * h), 50_000_000)
    live = max(job.zero("stage3_max_live_parameters", 10**9, 10**9), job.shape.largest_tensor)
    yield Part(
        "gathered parameters",
        b * min(total, live + prefetch),
        "b min(P, max(max_live_parameters, largest) + prefetch bucket)",
        phases=ALWAYS[:2],
    )


def _gradients(job: Job, trained: tuple[Tensor, ...], size: int) -> Iterator[Part]:
    b, away = job.bytes, "optimizer" in offloads(job.ds_config)
    largest = max(tensor.numel for tensor in trained)
    if job.ds_config is None:
        yield Part("gradients", 4 * size, "4 T (float32)")
        if job.gpus > 1:
            yield Part("buckets", 4 * size, "4 T, DDP's copy", phases=ALWAYS[:2])
        return
    if job.stage == 0:
        yield Part("gradients", (b + 4) * size, "b T + 4 T (float32 copy)")
        return
    if job.stage == 1:
        yield Part("gradients", b * size, "b T")
    elif not away:
        yield Part("gradients", b * _share(size, job), "b T / N")
    if job.stage > 1 or away:
        yield Part("gradient at work", b * largest, "b x largest trained", phases=("backward",))
    bucket = job.zero("reduce_bucket_size", job.shape.hidden_size**2, 500_000_000)
    overlaps = job.ds_config.get("zero_optimization", {}).get("overlap_comm", job.stage == 3)
    copies = 2 if overlaps else 1
    yield Part(
        "buckets",
        b * bucket * copies,
        f"{copies} b reduce_bucket_size",
        phases=ALWAYS if job.stage == 3 else ("backward",),
    )


def _optimizer(job: Job, size: int) -> Iterator[Part]:
    mine = _share(size, job)
    if job.ds_config is None:
        yield Part("optimizer", 8 * size, "8 T: Adam's two moments")
    elif job.stage == 0:
        yield Part("optimizer", 12 * size, "12 T: float32 weights and Adam's two moments")
    elif "optimizer" not in offloads(job.ds_config):
        yield Part("optimizer", 12 * mine, "12 T / N: float32 weights, Adam's two moments")
        if job.stage == 3:
            mine = min(mine, job.zero("sub_group_size", 10**9, 10**9))
        yield Part("float32 gradients", 4 * mine, "4 T / N at the step", phases=("step",))


def _layer_bytes(job: Job) -> tuple[int, int]:
    """Bytes a token that one layer saves, and those it works with in its own backward."""
    s, b = job.shape, job.bytes
    h, f, a = s.hidden_size, s.intermediate_size, s.num_heads * s.head_dim
    full = job.lora is None
    # A norm saves its float32 input, its output, and the product before a trained weight.
    saved = s.norms_per_layer * h * (4 + b + (b if full else 0))
    if s.qk_norm:
        saved += (a + s.num_kv_heads * s.head_dim) * (4 + b + (b if full else 0))
    saved += 4 * b * a  # queries, keys and values for all heads, output
    saved += 4 * b * f  # gate, its activation, up, their product
    work = b * (3 * f + 2 * h)
    if job.attention == "eager":
        scores = s.num_heads * job.sequence_length
        saved += (4 + b + (b if s.softcapped else 0)) * scores  # float32 softmax, cast, tanh
        work += (4 + 2 * b) * scores
    if job.lora:
        saved += 7 * b * job.lora.r
        if job.lora.dropout:  # each adapted module keeps its own dropped input and the mask
            inputs = sum(inputs for _, inputs, _, _ in s.linears())
            saved += (b + 1) * inputs
    return saved, work


def _activations(job: Job) -> Iterator[Part]:
    s, b, t = job.shape, job.bytes, job.tokens
    saved, work = _layer_bytes(job)
    ends = s.hidden_size * (4 + 2 * b)  # embedding output and the last norm
    mask = 0
    if job.attention == "sdpa":
        mask = t * job.sequence_length * (1 + b)
    layer, formula = saved, f"t L x {saved:,} bytes: norms, attention, gated MLP"
    if job.gradient_checkpointing:
        layer, formula = b * s.hidden_size, "t L b h: the input of each layer"
        work += saved
    kept = t * (s.num_layers * layer + ends) + mask
    yield Part("activations", kept, formula, phases=ALWAYS[:2])
    again = "recomputed layer + " if job.gradient_checkpointing else ""
    yield Part("layer at work", t * work, f"{again}t b (3 f + 2 h)", phases=("backward",))


def _loss(job: Job) -> Iterator[Part]:
    b, v, t = job.bytes, job.shape.vocab_size, job.tokens
    formula, each = "t V (b + 12): logits, float32 log-softmax, two gradients", b + 12
    if job.shape.softcapped:
        each, formula = each + 2 * b, "t V (3 b + 12): as above, and tanh"
    yield Part("logits and loss", t * v * each, formula, phases=("loss",))
    yield Part("logits", t * v * b, "t V b, held by the outputs", phases=("backward",))


def _host(job: Job, size: int, total: int) -> Iterator[Part]:
    m, b = job.ranks_here, job.bytes
    where: Literal["host"] = "host"
    yield Part(
        "processes", m * PROCESS_HOST_BYTES, "3 GiB a process, assumed", where, ("load", "train")
    )
    # Under ZeRO-3 transformers reads the checkpoint on rank 0 only.
    copies = 1 if job.stage == 3 else m
    formula = "b P, on the first host" if job.stage == 3 else "M b P"
    yield Part("loading", copies * b * total, formula, where, ("load",))
    if "optimizer" in offloads(job.ds_config):
        mine = m * _share(size, job)
        yield Part("optimizer", 12 * mine, "12 T M / N", where, ("train",))
        yield Part("gradients", 4 * mine, "4 T M / N", where, ("train",))
        yield Part("16-bit buffers", b * mine, "b T M / N", where, ("train",))
    if "param" in offloads(job.ds_config):
        yield Part("weights", b * m * _share(total, job), "b P M / N", where, ("load", "train"))
