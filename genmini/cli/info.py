"""`genmini info`: versions, devices, libraries, and which backend each operator takes here."""

HELP = "versions, devices, libraries, and which backend each operator takes here, and why"


def options(parser):
    pass


def run(arguments):
    from genmini import info, kernels, ops  # noqa: F401  ops imports every room

    notes = info.notes()
    for name, version in info.versions().items():
        print(f"{name:<9} {version}   {notes[name]}".rstrip())
    for name, compiler in info.compilers().items():
        print(f"{name:<9} {compiler}")
    if info.interpreter_broken():
        print(f"note      {info.interpreter_broken()}")

    devices = info.devices()
    print("\ndevices")
    for name, what in devices.items():
        print(f"  {name:<9} {what}")
    if len(devices) == 1:
        print("  no CUDA device: GPU kernels run as `emulated`, on CPU tensors")

    libraries = kernels.libraries()
    print("\nlibraries (csrc/, compiled)")
    for library in libraries:
        state = "built from other sources" if library.stale else "built" if library.built else "NOT built"
        print(f"  {library.name + '.' + library.kind:<28} {state}")
        if not library.built:
            for line in library.log.strip().splitlines()[-6:]:
                print(f"      {line}")
    if not all(library.built and not library.stale for library in libraries):
        print(f"  to build what is missing: {kernels.mend()}")

    print(f"\noperators (backend: {kernels.requested()})")
    for name, room in kernels.ROOMS.items():
        print(f"  {name}   [{room.language}: {' < '.join(kernels.rungs(name))}]")
        choices = {device: info.choice(name, device) for device in devices}
        for where, (taken, why) in (choices | {"emulated": info.choice(name, "cpu", "emulated")}).items():
            print(f"    {where:<10} " + (f"no: {why}" if taken == "no" else f"{taken:<24} {why}"))
