"""What preflight found, as text that one can read."""

GiB = 2**30


def lines(found: dict) -> list[str]:
    """The report of what `examine` (research/preflight.py) found."""
    steps = found["steps"]
    train = steps["train"]
    out = [header(found), "", *memory(steps)]
    if not train["fits"]:
        return out + largest_allocations(train)
    out += ["", *work(found, train)]
    out += ["", *collectives(train["collectives"])]
    if train["seconds"]:
        out += ["", *roofline(found, steps)]
    return out + ["", *largest(found["largest"]), "", *remarks(found)]


def header(found: dict) -> str:
    mesh = " ".join(f"{axis}={n}" for axis, n in found["mesh"].items() if n > 1) or "of one"
    slices = f"{found['slices']} slices of " if found["slices"] > 1 else ""
    return f"{count(found['parameters'])} parameters on {slices}{found['topology']}: {found['devices']:,} x {found['kind']}, mesh {mesh}"


def table(rows: list[list[str]], left: int = 1) -> list[str]:
    """Columns under each other: the first `left` to the left, numbers to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) if k < left else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths))).rstrip() for row in rows]


def count(n: float) -> str:
    """1.56B, 124M, 760K"""
    unit, letter = next((unit, letter) for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K"), (1, "")) if n >= unit)
    return f"{n / unit:.3g}{letter}"


def gib(n: float) -> str:
    return f"{n / GiB:,.2f}" if n >= 0.1 * GiB else f"{n / GiB:.4f}"


def memory(steps: dict) -> list[str]:
    classes = list(dict.fromkeys(name for step in steps.values() for name in step["memory"]))
    rows = [["Memory of a device, GiB", *steps]]
    rows += [
        [f"  {name}", *(gib(step["memory"][name]) if name in step["memory"] else "" for step in steps.values())]
        for name in classes
        if any(step["memory"].get(name) for step in steps.values())
    ]
    totals = {name: sum(step["memory"].values()) for name, step in steps.items()}
    rows.append(["  in all", *map(gib, totals.values())])
    if steps["train"]["available"]:
        rows.append(["  there are", *(gib(step["available"]) for step in steps.values())])
        rows.append(["  free", *(f"{1 - totals[name] / step['available']:.0%}" if step["fits"] else "DOES NOT FIT" for name, step in steps.items())])
    return table(rows)


def largest_allocations(step: dict) -> list[str]:
    over = sum(step["memory"].values()) - step["available"]
    most = max(step["memory"], key=step["memory"].get)
    out = ["", f"It does not fit: {gib(over)} GiB too much at least. Most are {most}: {gib(step['memory'][most])} GiB."]
    return out + [f"  {gib(x['bytes'])} GiB  {x['what']}" for x in step.get("largest allocations", ())]


def work(found: dict, train: dict) -> list[str]:
    devices, model = found["devices"], found["model_flops_in_a_step"]
    hardware, once = train["flops"] * devices, found["jaxpr_flops_in_a_step"]
    rows = [["A training step", "all devices", "a device"]]
    rows.append([f"  {found['unit']}", f"{found['units_in_a_step']:,}", f"{found['units_in_a_step'] / devices:,.0f}"])
    rows.append(["  model FLOPs", f"{model:.3e}", f"{model / devices:.3e}"])
    rows.append(["  hardware FLOPs, as written", f"{once:.3e}", f"{once / devices:.3e}"])
    rows.append(["  hardware FLOPs, as compiled", f"{hardware:.3e}", f"{train['flops']:.3e}"])
    rows.append(["  HBM traffic, GB", "", f"{train['hbm_bytes'] / 1e9:,.1f}"])
    rows += [["  to and from the host, GB", "", f"{train['host_bytes'] / 1e9:,.1f}"]] if train["host_bytes"] else []
    return table(rows)


def collectives(found: list[dict]) -> list[str]:
    rows = [["Collectives of a step, each device", "along", "over", "beside computation", "times", "GB sent"]]
    for c in found:
        beside = "yes" if c["asynchronous"] else "no"
        rows.append([f"  {c['kind']}", " ".join(c["axes"]), c["network"], beside, f"{c['count']:,.0f}", f"{c['bytes'] / 1e9:,.3f}"])
    return table(rows, 4) if found else ["No collectives."]


def roofline(found: dict, steps: dict) -> list[str]:
    train = steps["train"]["seconds"]
    names = {"compute": "computing at the peak", "memory": "HBM traffic", "ICI": "collectives over ICI", "DCN": "collectives over DCN"}
    rows = [["Time of a step, ms", *steps]]
    for key, what in names.items():
        if train[key]:
            rows.append([f"  {what}", *(f"{step['seconds'][key] * 1e3:,.1f}" for step in steps.values() if step["fits"])])
    rows.append(["  at least", *(f"{step['seconds']['bound'] * 1e3:,.1f}" for step in steps.values() if step["fits"])])
    rows.append(["  as compiled", *(f"{step['seconds']['step'] * 1e3:,.1f}" for step in steps.values() if step["fits"])])
    rows = [row + [""] * (len(rows[0]) - len(row)) for row in rows]
    rules = max(names, key=lambda key: train[key])
    ideal = found["model_flops_in_a_step"] / found["peak_flops_of_all"]
    taken = found.get("round", {})
    counted = all(name in steps and steps[name]["fits"] for name in taken)
    between = sum(times * steps[name]["seconds"]["step"] / found["steps_a_round"] for name, times in taken.items()) if counted else 0
    collecting = f", collecting experience {'' if counted else 'not '}among them" if taken else ""
    hours = found["steps_in_all"] * (train["step"] + between) / 3600
    return table(rows) + [
        f"What rules is {names[rules]}. Model-FLOP utilization: {ideal / train['bound']:.1%} at most, {ideal / train['step']:.1%} as compiled.",
        f"As compiled: {found['units_in_a_step'] / train['step']:,.0f} {found['unit']}/s; all {found['steps_in_all']:,} steps take "
        f"{hours / 24:,.1f} days, {hours * found['devices']:,.0f} device-hours{collecting}.",
    ]


def largest(found: list[dict]) -> list[str]:
    rows = [["Largest parameters", "shape", "split over", "MiB a device"]]
    for x in found:
        axes = ", ".join("+".join(a) or "-" for a in x["axes"]) or "-"
        rows.append([f"  {x['name']}", "x".join(map(str, x["shape"])), axes, f"{x['bytes'] / 2**20:,.1f}"])
    return table(rows, 3)


def remarks(found: dict) -> list[str]:
    compiled = [f"{step['compile_seconds']:.0f} s ({name})" for name, step in found["steps"].items() if step["fits"]]
    out = [f"A checkpoint has {found['checkpoint_bytes_in_all'] / 1e9:,.1f} GB. Compiling took {', '.join(compiled)}."]
    for name, step in found["steps"].items():
        if step.get("involuntary_rematerializations"):
            out.append(
                f"The partitioner replicates {step['involuntary_rematerializations']} tensors of the {name} step for want of a better way: constrain them."
            )
        if step.get("loops_of_unknown_length"):
            out.append(f"{step['loops_of_unknown_length']} loops of the {name} step end when data say so; they count once.")
    return out + [f"{name} is whole on every device, and over 64 MiB." for name in found["large_and_whole"]]


def flags(fields: dict) -> str:
    return " ".join(f"--config.{name}={value}" for name, value in fields.items())


def trials(found: list) -> list[str]:
    """Every layout that was tried (see research/compile/fit.py), with what its train step takes."""
    rows = [["Layout", "GiB", "ms a step"]]
    for trial in found:
        if trial.step is None:
            rows.append([f"  {flags(trial.fields)}", "", "cannot be"])
        else:
            fits = trial.step["fits"]
            rows.append([f"  {flags(trial.fields)}", gib(trial.needed), f"{trial.seconds * 1e3:,.1f}" if fits else "does not fit"])
    return table(rows)


def remedies(found: list) -> list[str]:
    rows = [["What would help most", "GiB needed", ""]]
    for trial in found:
        if trial.step:
            rows.append([f"  {flags(trial.fields)}", gib(trial.needed), "fits" if trial.step["fits"] else "does not fit yet"])
    return ["", *table(rows)]
