"""Times CasADi or JAX against the derivatives of hand.c: `peers.py casadi|jax LIBRARY DIRECTORY`.

Rows `peer,task,ns,by_hand_ns` go to standard output, everything else to standard error. Exits with 1 when a
derivative differs from the one by hand.
"""

import ctypes
import math
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np

TASKS = "T1_jvp T2_jvp T2_grad T3_grad T4_grad T5_jvp T5_jac T6_grad T7_jac T8_grad".split()
BATCH, BATCHES = 256, 8
STEPS, DT = 100, 0.02
D, K, N = 10, 5, 1000
ICF = D * (D + 1) // 2
ROUNDS, SLICE_NS = 21, 4e6


# Inputs: the generator and the ranges of hand.c.


def fill(seed, shape, lo=0.0, hi=1.0):
    n = math.prod(shape)
    z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (lo + (hi - lo) * ((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)).reshape(shape)


def inputs():
    """(x, data) of each task; data has one row for each minibatch."""
    none = np.zeros((1, 0))
    lotka_volterra = np.array([1.5, 1.0, 3.0, 1.0, 2.0, 1.0])
    rosenbrock = fill(20, (1000,), 0.5, 1.5)
    labelled = fill(31, (BATCHES, BATCH * 65), -1.0, 1.0)
    labelled[:, BATCH * 64 :] = np.where(labelled[:, BATCH * 64 :] < 0.0, -1.0, 1.0)
    lo = np.array([-0.5, -0.5, -0.5, -1, -1, -1, 0.8, -0.1, -0.1, -0.1, -0.1, -1, -1, 4, 0.5])
    hi = np.array([0.5, 0.5, 0.5, 1, 1, 1, 1.2, 0.1, 0.1, 0.1, 0.1, 1, 1, 6, 1.5])
    return {
        "T1_jvp": (np.array([2.0, 4.0]), fill(11, (1, 2), -1.0, 1.0)),
        "T2_jvp": (rosenbrock, fill(21, (1, 1000), -1.0, 1.0)),
        "T2_grad": (rosenbrock, none),
        "T3_grad": (fill(30, (65,), -0.3, 0.3), labelled),
        "T4_grad": (fill(40, (433,), -0.5, 0.5), fill(41, (BATCHES, BATCH * 9), -1.0, 1.0)),
        "T5_jvp": (lotka_volterra, fill(51, (1, 6), -1.0, 1.0)),
        "T5_jac": (lotka_volterra, none),
        "T6_grad": (fill(60, (K * (1 + D + ICF),), -0.5, 0.5), fill(61, (1, N * D), -2.0, 2.0)),
        "T7_jac": ((lo + (hi - lo) * fill(70, (N, 15))).ravel(), fill(71, (1, N * 2), -0.5, 0.5)),
        "T8_grad": ((fill(80, (12, 12), -1.0, 1.0) + 3.0 * np.eye(12)).ravel(), none),
    }


def gmm_constant():
    """The additive constant of T6: of the densities, and of the Wishart prior with γ = 1, m = 0."""
    dof = D + 1
    log_gamma = 0.25 * D * (D - 1) * math.log(math.pi) + sum(math.lgamma(0.5 * (dof + 1 - j)) for j in range(1, D + 1))
    return -0.5 * N * D * math.log(2 * math.pi) - K * (-0.5 * dof * D * math.log(2.0) - log_gamma)


# The derivatives by hand, and the comparison.


class Task(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p)] + [(n, ctypes.c_int) for n in ("nx", "ndata", "batches", "nout")]
    _fields_ += [("run", ctypes.c_void_p), ("x", ctypes.c_void_p), ("data", ctypes.c_void_p)]


class Hand:
    def __init__(self, library):
        self.lib = ctypes.CDLL(library)
        self.now = self.lib.hand_now
        self.now.restype = ctypes.c_double
        self.lib.hand_task.restype = ctypes.POINTER(Task)
        self.lib.hand_time.restype = ctypes.c_double
        self.lib.hand_time.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
        self.run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        self.inputs = inputs()
        for index, name in enumerate(TASKS):
            task, (x, data) = self.lib.hand_task(index).contents, self.inputs[name]
            known = (name, x.size, data.shape[1], data.shape[0])
            if (task.name.decode(), task.nx, task.ndata, task.batches) != known:
                sys.exit(f"{name}: hand.c and peers.py disagree about the task")
            for ours, theirs in ((x, task.x), (data, task.data)):
                theirs = np.ctypeslib.as_array((ctypes.c_double * ours.size).from_address(theirs))
                if not np.array_equal(ours.ravel(), theirs):
                    sys.exit(f"{name}: hand.c and peers.py disagree about the inputs")

    def result(self, name, batch):
        task, (x, data) = self.lib.hand_task(TASKS.index(name)).contents, self.inputs[name]
        out = np.empty(task.nout)
        self.run(task.run)(x.ctypes.data, data[batch:].ctypes.data, out.ctypes.data)
        return out

    def timer(self, name):
        out = np.empty(self.lib.hand_task(TASKS.index(name)).contents.nout)
        return lambda calls: self.lib.hand_time(TASKS.index(name), calls, out.ctypes.data)


def agrees(peer, name, computed, by_hand):
    """Relative to the entry, or to a millionth of the largest one where the entry is smaller than that."""
    scale = np.maximum(np.abs(by_hand), 1e-6 * np.abs(by_hand).max())
    error = np.abs(computed - by_hand) / scale
    if computed.shape == by_hand.shape and np.all(error <= 1e-8):
        return True
    print(f"{peer}, {name}: wrong derivative, relative error {error.max():.1e}", file=sys.stderr)
    return False


def calls_for(timer):
    calls = 1
    while (ns := timer(calls)) * calls < SLICE_NS / 2:
        calls *= 2
    return max(1, round(SLICE_NS / ns))


def compare(peer, name, timer, by_hand):
    """Interleaved rounds; prints the one with the median ratio."""
    counts = calls_for(timer), calls_for(by_hand)
    rounds = [(timer(counts[0]), by_hand(counts[1])) for _ in range(ROUNDS)]
    ns, hand_ns = sorted(rounds, key=lambda r: r[0] / r[1])[ROUNDS // 2]
    print(f"{peer},{name},{ns:.1f},{hand_ns:.1f}", flush=True)


# CasADi.


def casadi_functions(ca):
    """task, function, where its arguments start in data (the first argument is x), where its results start in out."""
    SX, MX = ca.SX, ca.MX

    def function(name, args, results):
        return ca.Function(name, args, ca.cse(results))

    def gradient(f, x):
        return ca.densify(ca.gradient(f, x))

    def with_gradient(name, f, x):
        return function(name, [x], [f, gradient(f, x)])

    def with_tangent(name, f, x):
        p = SX.sym("p", x.numel())
        return function(name, [x, p], [f, ca.densify(ca.jtimes(f, x, p))])

    def rosenbrock():
        x = SX.sym("x", 1000)
        return ca.sum1(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), x

    def logistic():
        x, r, y = SX.sym("x", 65), SX.sym("r", 64), SX.sym("y")
        f = ca.log(1 + ca.exp(-y * (ca.dot(x[:64], r) + x[64])))
        sample = function("T3_sample", [x, r, y], [f, gradient(f, x)])
        return sample.map(BATCH, [True, False, False], [True, True])

    def network():
        x, r, t = SX.sym("x", 433), SX.sym("r", 8), SX.sym("t")
        w1, b1, w2, b2, w3, b3 = ca.vertsplit(x, [0, 128, 144, 400, 416, 432, 433])
        h = ca.tanh(ca.reshape(w1, 16, 8) @ r + b1)
        h = ca.tanh(ca.reshape(w2, 16, 16) @ h + b2)
        f = (ca.dot(w3, h) + b3 - t) ** 2
        sample = function("T4_sample", [x, r, t], [f, gradient(f, x)])
        return sample.map(BATCH, [True, False, False], [True, True])

    def lotka_volterra():
        x = SX.sym("x", 6)
        a, b, c, d = ca.vertsplit(x[:4])
        field = lambda z: ca.vertcat(a * z[0] - b * z[0] * z[1], d * z[0] * z[1] - c * z[1])
        z = x[4:]
        for _ in range(STEPS):
            k1 = field(z)
            k2 = field(z + DT / 2 * k1)
            k3 = field(z + DT / 2 * k2)
            k4 = field(z + DT * k3)
            z = z + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return z, x

    def lotka_volterra_jacobian():
        z, x = lotka_volterra()
        return function("T5_jac", [x], [z, ca.densify(ca.jacobian(z, x)).T])

    def mixture():
        # A point's density as scalar operations, mapped over the points; the rest around it as one graph.
        alpha, mean, q, low = (SX.sym(n, r, K) for n, r in (("a", 1), ("m", D), ("q", D), ("l", ICF - D)))
        point, terms = SX.sym("p", D), []
        for k in range(K):
            c = point - mean[:, k]
            z = [q[i, k] * c[i] for i in range(D)]
            at = 0
            for i in range(D):
                for j in range(i + 1, D):
                    z[j] += low[at, k] * c[i]
                    at += 1
            terms.append(alpha[k] - 0.5 * sum(v * v for v in z))
        sample = logsumexp("T6_sample", terms, [alpha, mean, q, low], [point])
        batch = sample.map(N, [True] * 4 + [False], [True] * 5)
        x, points = MX.sym("x", K * (1 + D + ICF)), MX.sym("points", D, N)
        a, m, icf = ca.vertsplit(x, [0, K, K + K * D, K * (1 + D + ICF)])
        icf = ca.reshape(icf, ICF, K)
        logs, low = icf[:D, :], icf[D:, :]
        q = ca.exp(logs)
        f, ga, gm, gq, gl = batch(a.T + ca.sum1(logs), ca.reshape(m, D, K), q, low, points)
        weights = SX.sym("weights", K)
        lse, lse_gradient = logsumexp("T6_weights", ca.vertsplit(weights), [weights], [])(a)
        value = gmm_constant() + f - N * lse + 0.5 * (ca.sumsqr(q) + ca.sumsqr(low))
        glog = ca.repmat(ga, D, 1) + q * (gq + q)
        gicf = ca.vertcat(glog, gl + low)
        g = ca.vertcat(ga.T - N * lse_gradient, ca.vec(gm), ca.vec(gicf))
        return ca.Function("T6_grad", [x, points], [value, g])

    def logsumexp(name, terms, by, data):
        # Shifting by the largest term does not change the derivative, so that it is held constant.
        shift, top = SX.sym("shift"), terms[0]
        for t in terms[1:]:
            top = ca.fmax(top, t)
        f = shift + ca.log(sum(ca.exp(t - shift) for t in terms))
        results = [f] + [gradient(f, v) for v in by]
        return function(name, [*by, *data], ca.substitute(results, [shift], [top]))

    def reprojection():
        x, seen = SX.sym("x", 15), SX.sym("seen", 2)
        rotation, point = x[:3], x[11:14] - x[3:6]
        theta = ca.sqrt(ca.sumsqr(rotation))
        co, si, w = ca.cos(theta), ca.sin(theta), rotation / theta
        cam = point * co + ca.cross(w, point) * si + w * (ca.dot(w, point) * (1 - co))
        p = cam[:2] / cam[2]
        r2 = ca.sumsqr(p)
        f = x[14] * (p * (1 + x[9] * r2 + x[10] * r2**2) * x[6] + x[7:9] - seen)
        sample = function("T7_sample", [x, seen], [f, ca.densify(ca.jacobian(f, x)).T])
        return sample.map(N, "serial")

    def determinant():
        x = SX.sym("x", 144)
        a = [[x[12 * i + j] for j in range(12)] for i in range(12)]
        det = 1
        for k in range(12):
            det = det * a[k][k]
            for i in range(k + 1, 12):
                factor = a[i][k] / a[k][k]
                for j in range(k + 1, 12):
                    a[i][j] = a[i][j] - factor * a[k][j]
        return det, x

    x = SX.sym("x", 2)
    yield "T1_jvp", with_tangent("T1_jvp", ca.cos(x[0]) + x[0] * x[1] - ca.exp(x[1]), x), [0], [0, 1]
    yield "T2_jvp", with_tangent("T2_jvp", *rosenbrock()), [0], [0, 1]
    yield "T2_grad", with_gradient("T2_grad", *rosenbrock()), [], [0, 1]
    yield "T3_grad", logistic(), [0, 64 * BATCH], [0, 1]
    yield "T4_grad", network(), [0, 8 * BATCH], [0, 1]
    yield "T5_jvp", with_tangent("T5_jvp", *lotka_volterra()), [0], [0, 2]
    yield "T5_jac", lotka_volterra_jacobian(), [], [0, 2]
    yield "T6_grad", mixture(), [0], [0, 1]
    yield "T7_jac", reprojection(), [0], [0, 2 * N]
    yield "T8_grad", with_gradient("T8_grad", *determinant()), [], [0, 1]


def run_casadi(hand, directory):
    import casadi as ca

    print(f"casadi {ca.__version__}", file=sys.stderr)
    compiler = shutil.which("gcc")
    if compiler is None:
        print("casadi_c: skipped, there is no gcc", file=sys.stderr)
    machine = next(pathlib.Path(ca.__file__).parent.glob("libcasadi.*"))
    machine = ctypes.CDLL(str(machine))
    loop = hand.lib.casadi_time
    loop.restype = ctypes.c_double
    pointer = ctypes.c_void_p
    loop.argtypes = [pointer, pointer, ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_int, pointer, pointer]
    loop.argtypes += [ctypes.c_long, pointer, pointer, pointer, pointer]
    address = lambda f: ctypes.cast(f, pointer).value
    wrong = False

    for name, f, data_at, result_at in casadi_functions(ca):
        x, data = hand.inputs[name]
        out = np.empty(hand.result(name, 0).size)
        # Buffers that the caller owns, made once: arguments, results, and work space of the function.
        base = np.array([x.ctypes.data] + [data.ctypes.data + 8 * at for at in data_at], dtype=np.uint64)
        step = np.array([0] + [data.shape[1]] * len(data_at), dtype=np.int64)
        arg, res = np.zeros(f.sz_arg() + 1, np.uint64), np.zeros(f.sz_res() + 1, np.uint64)
        res[: len(result_at)] = [out.ctypes.data + 8 * at for at in result_at]
        iw, w = np.zeros(f.sz_iw() + 1, np.int64), np.zeros(f.sz_w() + 1)

        def timed(compiled, evaluate, index, memory):
            rest = [step.ctypes.data, len(data), *(v.ctypes.data for v in (arg, res, iw, w))]
            return lambda calls, base=base: loop(
                compiled, evaluate, index, memory, calls, base.size, base.ctypes.data, *rest
            )

        saved = directory / f"{name}.casadi"
        f.save(str(saved))
        machine.casadi_c_clear()
        if machine.casadi_c_push_file(os.fsencode(saved)) != 0:
            sys.exit(f"casadi_vm, {name}: the function could not be loaded")
        index = machine.casadi_c_id(f.name().encode())
        memory = machine.casadi_c_checkout_id(index)
        timers = [("casadi_vm", timed(None, address(machine.casadi_c_eval_id), index, memory))]
        if compiler is not None:
            source, built = directory / f"{name}.c", directory / f"{name}.so"
            f.generate(source.name, {"with_header": False})
            subprocess.run([compiler, "-O3", "-fPIC", "-shared", "-o", built, source, "-lm"], check=True)
            compiled = ctypes.CDLL(str(built))
            timers.append(("casadi_c", timed(address(getattr(compiled, f.name())), None, 0, 0)))

        for peer, timer in timers:
            good = True
            for batch in range(len(data)):
                out[:] = np.nan
                shifted = base + (8 * batch * step).astype(np.uint64)
                good = timer(1, shifted) >= 0.0 and agrees(peer, name, out, hand.result(name, batch)) and good
            if good:
                compare(peer, name, timer, hand.timer(name))
            wrong |= not good
        machine.casadi_c_release_id(index, memory)
    return wrong


# JAX.


def jax_functions(jax):
    """task, function of x and a row of data; it gives the value or values, then the derivatives."""
    jnp = jax.numpy

    def tangent(f):
        return lambda x, p: jax.jvp(f, (x,), (p,))

    def classical(x):
        return jnp.cos(x[0]) + x[0] * x[1] - jnp.exp(x[1])

    def rosenbrock(x):
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    def logistic(x, data):
        r, y = data[: 64 * BATCH].reshape(BATCH, 64), data[64 * BATCH :]
        return jnp.sum(jnp.log(1 + jnp.exp(-y * (r @ x[:64] + x[64]))))

    def network(x, data):
        r, t = data[: 8 * BATCH].reshape(BATCH, 8), data[8 * BATCH :]
        w1, b1, w2, b2, w3, b3 = jnp.split(x, [128, 144, 400, 416, 432])
        h = jnp.tanh(r @ w1.reshape(8, 16) + b1)
        h = jnp.tanh(h @ w2.reshape(16, 16) + b2)
        return jnp.sum((h @ w3 + b3 - t) ** 2)

    def lotka_volterra(x):
        a, b, c, d = x[:4]
        field = lambda u, v: (a * u - b * u * v, d * u * v - c * v)

        def step(z, _):
            u, v = z
            k1 = field(u, v)
            k2 = field(u + DT / 2 * k1[0], v + DT / 2 * k1[1])
            k3 = field(u + DT / 2 * k2[0], v + DT / 2 * k2[1])
            k4 = field(u + DT * k3[0], v + DT * k3[1])
            move = lambda z, *k: z + DT / 6 * (k[0] + 2 * k[1] + 2 * k[2] + k[3])
            return (move(u, k1[0], k2[0], k3[0], k4[0]), move(v, k1[1], k2[1], k3[1], k4[1])), None

        return jnp.stack(jax.lax.scan(step, (x[4], x[5]), None, length=STEPS)[0])

    rows, columns = np.tril_indices(D, -1)
    order = np.lexsort((rows, columns))

    def mixture(x, points):
        alpha, mean, icf = x[:K], x[K : K + K * D].reshape(K, D), x[K + K * D :].reshape(K, ICF)
        logs, low = icf[:, :D], icf[:, D:]
        q = jnp.exp(logs)
        factor = jnp.zeros((K, D, D)).at[:, rows[order], columns[order]].set(low) + jax.vmap(jnp.diag)(q)
        z = jnp.einsum("kij,nkj->nki", factor, points.reshape(N, 1, D) - mean)
        terms = alpha + jnp.sum(logs, 1) - 0.5 * jnp.sum(z * z, 2)
        density = jnp.sum(jax.scipy.special.logsumexp(terms, axis=1)) - N * jax.scipy.special.logsumexp(alpha)
        return gmm_constant() + density + 0.5 * (jnp.sum(q * q) + jnp.sum(low * low))

    def reprojection(x, seen):
        rotation, point = x[:3], x[11:14] - x[3:6]
        theta = jnp.sqrt(jnp.sum(rotation**2))
        co, si, w = jnp.cos(theta), jnp.sin(theta), rotation / theta
        cam = point * co + jnp.cross(w, point) * si + w * (jnp.dot(w, point) * (1 - co))
        p = cam[:2] / cam[2]
        r2 = jnp.sum(p * p)
        err = x[14] * (p * (1 + x[9] * r2 + x[10] * r2**2) * x[6] + x[7:9] - seen)
        return err, err

    def reprojections(x, seen):
        jac, err = jax.vmap(jax.jacrev(reprojection, has_aux=True))(x.reshape(N, 15), seen.reshape(N, 2))
        return err, jac

    def determinant(x):
        a, det = x.reshape(12, 12), 1.0
        for _ in range(12):
            det = det * a[0, 0]
            a = a[1:, 1:] - jnp.outer(a[1:, 0] / a[0, 0], a[0, 1:])
        return det

    def with_jacobian(x, _):
        jac, z = jax.jacfwd(lambda x: (lotka_volterra(x),) * 2, has_aux=True)(x)
        return z, jac

    def gradient(f):
        return lambda x, _: jax.value_and_grad(f)(x)

    yield "T1_jvp", tangent(classical)
    yield "T2_jvp", tangent(rosenbrock)
    yield "T2_grad", gradient(rosenbrock)
    yield "T3_grad", jax.value_and_grad(logistic)
    yield "T4_grad", jax.value_and_grad(network)
    yield "T5_jvp", tangent(lotka_volterra)
    yield "T5_jac", with_jacobian
    yield "T6_grad", jax.value_and_grad(mixture)
    yield "T7_jac", reprojections
    yield "T8_grad", gradient(determinant)


def run_jax(hand, _directory):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    print(f"jax {jax.__version__}", file=sys.stderr)
    jax.config.update("jax_enable_x64", True)
    # Without a second thread to hand over to: quicker on one core.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    wrong = False
    for name, f in jax_functions(jax):
        f = jax.jit(f)
        x, data = hand.inputs[name]
        x, data = jax.device_put(x), [jax.device_put(row) for row in data]
        good = True
        for batch, row in enumerate(data):
            out = np.concatenate([np.ravel(v) for v in f(x, row)])
            good = agrees("jax", name, out, hand.result(name, batch)) and good

        def timer(calls):
            start = hand.now()
            for i in range(calls):
                f(x, data[i % len(data)])[1].block_until_ready()
            return (hand.now() - start) / calls

        if good:
            compare("jax", name, timer, hand.timer(name))
        wrong |= not good
    return wrong


if __name__ == "__main__":
    peer, library, directory = sys.argv[1:]
    hand = Hand(str(pathlib.Path(library).resolve()))
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    os.chdir(directory)
    # True, which counts as 1, when a derivative was wrong.
    sys.exit({"casadi": run_casadi, "jax": run_jax}[peer](hand, directory.resolve()))
