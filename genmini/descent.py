"""What a training loop steps with: an optimiser for each update, the randomness of a training, Ctrl-C between steps."""

import contextlib
import signal
import threading

import torch


class Descent:
    """AdamW on some parameters, with a cosine for its rate, a clip of their gradients and a scaler of their loss."""

    def __init__(self, parameters, loop, device):
        self.parameters, self.clip, self.loop = parameters, loop.clip, loop
        self._start(fused=True)  # one kernel a step: else some ten operators a parameter
        self.scaler = torch.amp.GradScaler(device.type, enabled=loop.precision == "float16")

    def _start(self, fused):
        loop = self.loop
        self.optimiser = torch.optim.AdamW(self.parameters, lr=loop.rate, betas=loop.betas, weight_decay=loop.decay,
                                           fused=fused)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, loop.steps)

    def step(self, loss):
        """One step down the loss, of which these parameters alone get gradients."""
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward(inputs=[p for p in self.parameters if p.requires_grad])
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()

    def state_dict(self):
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state):
        if not state["optimiser"]["param_groups"][0]["fused"]:  # a run of a version without it
            self._start(fused=None)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for parameter, kept in self.optimiser.state.items():  # fused steps take the memory as it lies: as parameters do
            kept |= {name: torch.empty_like(parameter).copy_(kept[name]) for name in ("exp_avg", "exp_avg_sq")}

    def _parts(self):
        return dict(optimiser=self.optimiser, schedule=self.schedule, scaler=self.scaler)


class Random:
    """The randomness of a training: its own generator chooses images, PyTorch's make dropout and dequantisation."""

    def __init__(self, seed, device):
        self.noise, self.device = torch.Generator().manual_seed(seed), device
        torch.manual_seed(seed)

    def state_dict(self):
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return {"noise": self.noise.get_state(), "cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state):
        self.noise.set_state(state["noise"])
        torch.set_rng_state(state["cpu"])
        if state["cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)


@contextlib.contextmanager
def between_steps():
    """-> a list that is empty until the first Ctrl-C, which the loop reads between steps. The second Ctrl-C raises
    KeyboardInterrupt."""
    interrupts = []

    def interrupt(*_):
        if interrupts:
            raise KeyboardInterrupt
        interrupts.append(True)

    on_main = threading.current_thread() is threading.main_thread()
    if not on_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupts  # the caller handles SIGINT, or ignores it as a job in the background does
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
