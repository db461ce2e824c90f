// Times ADOL-C against the derivatives of hand.c: each task is traced once, at the first inputs, and replayed.
// Rows `peer,task,ns,by_hand_ns` go to standard output, everything else to standard error; exits with 1 when a
// derivative differs from the one by hand.
#include <adolc/adolc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#include "hand.h"

using Vector = std::vector<double>;
using Call = std::function<void(long batch)>; // replays, and fills `out`

static Vector out;

// The pointers to the rows of a matrix stored by rows.
static std::vector<double *> rows(double *first, int count, int width) {
    std::vector<double *> r(count);
    for (int i = 0; i < count; i++) r[i] = first + i * width;
    return r;
}

// Records f : adouble x[n] → adouble y[m] under the tag. The tape stays in memory, in buffers that hold the largest
// task and no more: a reverse sweep allocates one of this size anew.
template <class F> static void trace(short tag, int n, int m, const double *x, F f) {
    const size_t entries = size_t(1) << (tag == T6_GRAD ? 22 : 20);
    trace_on(tag, 0, entries, entries, entries, entries);
    {
        std::vector<adouble> in(n), result(m);
        for (int i = 0; i < n; i++) in[i] <<= x[i];
        f(in.data(), result.data());
        double y;
        for (int i = 0; i < m; i++) result[i] >>= y;
    }
    trace_off();
}

static Call gradient_of(short tag, const task *t) {
    return [=](long) {
        static double one = 1.0;
        zos_forward(tag, 1, t->nx, 1, t->x, out.data());
        fos_reverse(tag, 1, t->nx, &one, out.data() + 1);
    };
}

// The same where the tape has t->ndata parameters, set anew for each minibatch.
static Call minibatch_gradient_of(short tag, const task *t) {
    Call gradient = gradient_of(tag, t);
    return [=](long batch) {
        set_param_vec(tag, t->ndata, t->data + batch * t->ndata);
        gradient(batch);
    };
}

static Call tangent_of(short tag, const task *t, int m) {
    return [=](long) { fos_forward(tag, m, t->nx, 0, t->x, t->data, out.data(), out.data() + m); };
}

static void rosenbrock(const adouble *x, adouble *y) {
    adouble sum = 0.0;
    for (int i = 0; i + 1 < T2_N; i++) {
        adouble a = x[i + 1] - x[i] * x[i], b = 1.0 - x[i];
        sum += 100.0 * a * a;
        sum += b * b;
    }
    y[0] = sum;
}

static void logistic(const task *t, const adouble *x, adouble *y) {
    std::vector<locint> p(t->ndata);
    for (int i = 0; i < t->ndata; i++) p[i] = mkparam_idx(t->data[i]);
    adouble sum = 0.0;
    for (int n = 0; n < BATCH; n++) {
        adouble z = x[T3_D];
        for (int i = 0; i < T3_D; i++) z += x[i] * getparam(p[n * T3_D + i]);
        z *= -getparam(p[BATCH * T3_D + n]);
        sum += log(1.0 + exp(z));
    }
    y[0] = sum;
}

static void network(const task *t, const adouble *x, adouble *y) {
    std::vector<locint> p(t->ndata);
    for (int i = 0; i < t->ndata; i++) p[i] = mkparam_idx(t->data[i]);
    const adouble *w1 = x, *b1 = w1 + T4_D * T4_H, *w2 = b1 + T4_H, *b2 = w2 + T4_H * T4_H, *w3 = b2 + T4_H;
    adouble sum = 0.0, h1[T4_H], h2[T4_H];
    for (int n = 0; n < BATCH; n++) {
        for (int j = 0; j < T4_H; j++) {
            h1[j] = b1[j];
            for (int i = 0; i < T4_D; i++) h1[j] += w1[i * T4_H + j] * getparam(p[n * T4_D + i]);
            h1[j] = tanh(h1[j]);
        }
        adouble r = w3[T4_H];
        for (int j = 0; j < T4_H; j++) {
            h2[j] = b2[j];
            for (int i = 0; i < T4_H; i++) h2[j] += w2[i * T4_H + j] * h1[i];
            h2[j] = tanh(h2[j]);
            r += w3[j] * h2[j];
        }
        r -= getparam(p[BATCH * T4_D + n]);
        sum += r * r;
    }
    y[0] = sum;
}

static void lotka_volterra(const adouble *x, adouble *y) {
    adouble z[2] = {x[4], x[5]}, s[2], k[4][2];
    auto field = [&](const adouble *z, adouble *k) {
        adouble uv = z[0] * z[1];
        k[0] = x[0] * z[0] - x[1] * uv;
        k[1] = x[3] * uv - x[2] * z[1];
    };
    for (int n = 0; n < T5_STEPS; n++) {
        field(z, k[0]);
        for (int q = 1; q < 4; q++) {
            for (int i = 0; i < 2; i++) s[i] = z[i] + (q == 3 ? T5_DT : 0.5 * T5_DT) * k[q - 1][i];
            field(s, k[q]);
        }
        for (int i = 0; i < 2; i++) z[i] += T5_DT / 6.0 * (k[0][i] + 2.0 * (k[1][i] + k[2][i]) + k[3][i]);
    }
    y[0] = z[0], y[1] = z[1];
}

static adouble logsumexp(const adouble *v) {
    // Shifting by the largest term does not change the derivative, so that it is held constant.
    double top = v[0].value();
    for (int k = 1; k < T6_K; k++) top = std::max(top, v[k].value());
    adouble sum = 0.0;
    for (int k = 0; k < T6_K; k++) sum += exp(v[k] - top);
    return top + log(sum);
}

static void mixture(const double *points, const adouble *x, adouble *y) {
    const int factors = T6_D * (T6_D + 1) / 2;
    const adouble *mean = x + T6_K, *icf = mean + T6_K * T6_D;
    adouble q[T6_K][T6_D], c[T6_D], z[T6_D], terms[T6_K], offset[T6_K], norm, prior = 0.0;
    for (int k = 0; k < T6_K; k++) {
        offset[k] = x[k];
        for (int i = 0; i < factors; i++) {
            const adouble &f = icf[k * factors + i];
            if (i < T6_D) {
                offset[k] += f;
                q[k][i] = exp(f);
                prior += q[k][i] * q[k][i];
            } else {
                prior += f * f;
            }
        }
    }
    adouble sum = 0.5 * prior + hand_t6_constant();
    for (int n = 0; n < T6_N; n++) {
        for (int k = 0; k < T6_K; k++) {
            const adouble *l = icf + k * factors + T6_D;
            for (int i = 0; i < T6_D; i++) {
                c[i] = points[n * T6_D + i] - mean[k * T6_D + i];
                z[i] = q[k][i] * c[i];
            }
            for (int i = 0; i < T6_D; i++)
                for (int j = i + 1; j < T6_D; j++) z[j] += *l++ * c[i];
            norm = 0.0;
            for (int i = 0; i < T6_D; i++) norm += z[i] * z[i];
            terms[k] = offset[k] - 0.5 * norm;
        }
        sum += logsumexp(terms);
    }
    y[0] = sum - double(T6_N) * logsumexp(x);
}

static void reprojection(const locint *seen, const adouble *x, adouble *y) {
    adouble w[3], v[3], cam[3];
    adouble theta = sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]), co = cos(theta), si = sin(theta);
    for (int i = 0; i < 3; i++) w[i] = x[i] / theta, v[i] = x[11 + i] - x[3 + i];
    adouble along = (w[0] * v[0] + w[1] * v[1] + w[2] * v[2]) * (1.0 - co);
    for (int i = 0; i < 3; i++) {
        int j = (i + 1) % 3, k = (i + 2) % 3;
        cam[i] = v[i] * co + (w[j] * v[k] - w[k] * v[j]) * si + w[i] * along;
    }
    adouble p[2] = {cam[0] / cam[2], cam[1] / cam[2]}, r2 = p[0] * p[0] + p[1] * p[1];
    adouble scale = (1.0 + x[9] * r2 + x[10] * r2 * r2) * x[6];
    for (int i = 0; i < 2; i++) y[i] = x[14] * (p[i] * scale + x[7 + i] - getparam(seen[i]));
}

static void reprojections(const double *seen, const adouble *x, adouble *y) {
    std::vector<locint> p(2 * T7_N);
    for (int i = 0; i < 2 * T7_N; i++) p[i] = mkparam_idx(seen[i]);
    for (int i = 0; i < T7_N; i++) reprojection(&p[2 * i], x + T7_X * i, y + 2 * i);
}

static void determinant(const adouble *x, adouble *y) {
    std::vector<adouble> a(x, x + T8_N * T8_N);
    adouble det = 1.0, factor;
    for (int k = 0; k < T8_N; k++) {
        det *= a[k * T8_N + k];
        for (int i = k + 1; i < T8_N; i++) {
            factor = a[i * T8_N + k] / a[k * T8_N + k];
            for (int j = k + 1; j < T8_N; j++) a[i * T8_N + j] -= factor * a[k * T8_N + j];
        }
    }
    y[0] = det;
}

static Call replay(int id, const task *t) {
    using namespace std::placeholders;
    const short tag = short(id);
    const int n = t->nx;
    switch (id) {
    case T1_JVP:
        trace(tag, n, 1, t->x, [](auto *x, auto *y) { y[0] = cos(x[0]) + x[0] * x[1] - exp(x[1]); });
        return tangent_of(tag, t, 1);
    case T2_JVP:
        trace(tag, n, 1, t->x, rosenbrock);
        return tangent_of(tag, t, 1);
    case T2_GRAD:
        trace(tag, n, 1, t->x, rosenbrock);
        return gradient_of(tag, t);
    case T3_GRAD:
        trace(tag, n, 1, t->x, std::bind(logistic, t, _1, _2));
        return minibatch_gradient_of(tag, t);
    case T4_GRAD:
        trace(tag, n, 1, t->x, std::bind(network, t, _1, _2));
        return minibatch_gradient_of(tag, t);
    case T5_JVP:
        trace(tag, n, 2, t->x, lotka_volterra);
        return tangent_of(tag, t, 2);
    case T5_JAC:
        trace(tag, n, 2, t->x, lotka_volterra);
        return [=](long) {
            static double identity[36];
            static std::vector<double *> in = rows(identity, 6, 6), jac = rows(out.data() + 2, 2, 6);
            for (int i = 0; i < 6; i++) identity[7 * i] = 1.0;
            fov_forward(tag, 2, n, 6, t->x, in.data(), out.data(), jac.data());
        };
    case T6_GRAD:
        trace(tag, n, 1, t->x, std::bind(mixture, t->data, _1, _2));
        return gradient_of(tag, t);
    case T7_JAC:
        // All observations on one tape, as no two share a variable: fifteen directions for the whole.
        trace(tag, n, 2 * T7_N, t->x, std::bind(reprojections, t->data, _1, _2));
        return [=](long) {
            static Vector seed(n * T7_X);
            static std::vector<double *> in = rows(seed.data(), n, T7_X);
            static std::vector<double *> jac = rows(out.data() + 2 * T7_N, 2 * T7_N, T7_X);
            for (int i = 0; i < n; i++) in[i][i % T7_X] = 1.0;
            set_param_vec(tag, t->ndata, t->data);
            fov_forward(tag, 2 * T7_N, n, T7_X, t->x, in.data(), out.data(), jac.data());
        };
    default:
        trace(tag, n, 1, t->x, determinant);
        return gradient_of(tag, t);
    }
}

// Relative to the entry, or to a millionth of the largest one where the entry is smaller than that.
static bool agrees(const char *name, const Vector &computed, const Vector &by_hand) {
    double largest = 0.0, worst = 0.0;
    for (double v : by_hand) largest = std::max(largest, std::fabs(v));
    for (size_t i = 0; i < by_hand.size(); i++) {
        double error = std::fabs(computed[i] - by_hand[i]) / std::max(std::fabs(by_hand[i]), 1e-6 * largest);
        worst = error <= worst ? worst : error;
    }
    if (worst <= 1e-8) return true;
    fprintf(stderr, "adolc, %s: wrong derivative, relative error %.1e\n", name, worst);
    return false;
}

// Returns whether the derivative was right.
static bool compare(int id) {
    const int rounds = 21;
    const double slice_ns = 4e6;
    const task *t = hand_task(id);
    out.assign(t->nout, 0.0);
    Call call = replay(id, t);
    for (long batch = 0; batch < t->batches; batch++) {
        Vector by_hand(t->nout);
        t->run(t->x, t->data + batch * t->ndata, by_hand.data());
        std::fill(out.begin(), out.end(), NAN);
        call(batch);
        if (!agrees(t->name, out, by_hand)) return false;
    }

    Vector scratch(t->nout);
    auto peer = [&](long calls) {
        double start = hand_now();
        for (long i = 0; i < calls; i++) call(i % t->batches);
        return (hand_now() - start) / double(calls);
    };
    auto by_hand = [&](long calls) { return hand_time(id, calls, scratch.data()); };
    auto calls_for = [&](auto timer) {
        long calls = 1;
        while (timer(calls) * double(calls) < slice_ns / 2) calls *= 2;
        return std::max(1L, long(slice_ns / timer(calls)));
    };
    long calls = calls_for(peer), hand_calls = calls_for(by_hand);
    std::vector<std::pair<double, double>> times;
    for (int i = 0; i < rounds; i++) {
        const double ns = peer(calls);
        times.emplace_back(ns, by_hand(hand_calls));
    }
    // The round with the median ratio.
    std::sort(times.begin(), times.end(), [](auto &a, auto &b) { return a.first / a.second < b.first / b.second; });
    printf("adolc,%s,%.1f,%.1f\n", t->name, times[rounds / 2].first, times[rounds / 2].second);
    fflush(stdout);
    return true;
}

int main() {
    bool wrong = false;
    for (int id = 0; id < TASKS; id++) {
        // A process for each task: a replay costs time for every number that was ever alive at once in the process.
        pid_t child = fork();
        if (child == 0) return compare(id) ? 0 : 1;
        int status = 1;
        if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) wrong = true;
    }
    return wrong ? 1 : 0;
}
