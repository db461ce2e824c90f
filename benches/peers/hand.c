/* Derivatives written by hand: what each peer's time is divided by. No call allocates; the hot loops run two
   lanes wide, which every x86-64 and AArch64 has, with several partial sums where a sum would be the bound. */
#include "hand.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define INLINE static inline __attribute__((always_inline))

/* Two neighbouring doubles, aligned as one. */
typedef double pair __attribute__((vector_size(16), aligned(8), may_alias));
#define PAIR(p) (*(pair *)(p))
#define PAIRS(p) (*(const pair *)(p))
INLINE pair both(double a) { return (pair){a, a}; }

/* Σ aᵢ·bᵢ in eight partial sums; n is a multiple of eight. */
INLINE double dot8(const double *a, const double *b, int n) {
    pair s[4] = {{0}};
    for (int i = 0; i < n; i += 8)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) s[j] += PAIRS(a + i + 2 * j) * PAIRS(b + i + 2 * j);
    pair t = (s[0] + s[1]) + (s[2] + s[3]);
    return t[0] + t[1];
}

/* T1: cos(x₁) + x₁·x₂ − exp(x₂), J·p. */
static void t1_jvp(const double *x, const double *p, double *out) {
    double e = exp(x[1]);
    out[0] = cos(x[0]) + x[0] * x[1] - e;
    out[1] = (x[1] - sin(x[0])) * p[0] + (x[0] - e) * p[1];
}

/* T2: Σ 100·(xᵢ₊₁ − xᵢ²)² + (1 − xᵢ)². */
static void t2_jvp(const double *restrict x, const double *restrict p, double *restrict out) {
    pair s[4] = {{0}}, d[4] = {{0}};
    int i = 0;
    for (; i + 8 <= T2_N - 1; i += 8)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const double *at = x + i + 2 * j, *dir = p + i + 2 * j;
            pair u = PAIRS(at), q = PAIRS(dir), a = PAIRS(at + 1) - u * u, b = both(1.0) - u, h = both(100.0) * a;
            s[j] += h * a + b * b;
            d[j] += h * (PAIRS(dir + 1) - (u + u) * q) - b * q;
        }
    pair st = (s[0] + s[1]) + (s[2] + s[3]), dt = (d[0] + d[1]) + (d[2] + d[3]);
    double value = st[0] + st[1], tangent = dt[0] + dt[1];
    for (; i < T2_N - 1; i++) {
        double u = x[i], a = x[i + 1] - u * u, b = 1.0 - u;
        value += 100.0 * a * a + b * b;
        tangent += 100.0 * a * (p[i + 1] - 2.0 * u * p[i]) - b * p[i];
    }
    out[0] = value, out[1] = 2.0 * tangent;
}

static void t2_grad(const double *restrict x, const double *restrict data, double *restrict out) {
    (void)data;
    double *restrict g = out + 1;
    pair s[4] = {{0}};
    int i = 1;
    double a = x[1] - x[0] * x[0], b = 1.0 - x[0], value = 100.0 * a * a + b * b;
    g[0] = -400.0 * x[0] * a - 2.0 * b;
    for (; i + 8 <= T2_N - 1; i += 8)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const double *at = x + i + 2 * j;
            pair u = PAIRS(at), before = PAIRS(at - 1), c = PAIRS(at + 1) - u * u, e = both(1.0) - u;
            s[j] += both(100.0) * c * c + e * e;
            PAIR(g + i + 2 * j) = both(200.0) * ((u - before * before) - (u + u) * c) - (e + e);
        }
    pair t = (s[0] + s[1]) + (s[2] + s[3]);
    value += t[0] + t[1];
    for (; i < T2_N - 1; i++) {
        double before = x[i] - x[i - 1] * x[i - 1];
        a = x[i + 1] - x[i] * x[i], b = 1.0 - x[i];
        value += 100.0 * a * a + b * b;
        g[i] = 200.0 * before - 400.0 * x[i] * a - 2.0 * b;
    }
    g[i] = 200.0 * (x[i] - x[i - 1] * x[i - 1]);
    out[0] = value;
}

/* T3: Σ ln(1 + exp(−y·(w·x + b))) over a minibatch; x = (w, b), data = features, then labels.
   Four samples at a time, so that the gradient is loaded and stored once for the four. */
static void t3_grad(const double *restrict x, const double *restrict data, double *restrict out) {
    const double *y = data + BATCH * T3_D;
    double *restrict g = out + 1, value = 0.0, bias = 0.0;
    memset(g, 0, T3_D * sizeof *g);
    for (int i = 0; i < BATCH; i += 4) {
        const double *restrict r = data + i * T3_D;
        double s[4];
        for (int q = 0; q < 4; q++) {
            double e = exp(-y[i + q] * (dot8(x, r + q * T3_D, T3_D) + x[T3_D]));
            value += log(1.0 + e);
            s[q] = -y[i + q] * (e / (1.0 + e));
        }
        bias += (s[0] + s[1]) + (s[2] + s[3]);
        for (int j = 0; j < T3_D; j += 2)
            PAIR(g + j) += (both(s[0]) * PAIRS(r + j) + both(s[1]) * PAIRS(r + T3_D + j)) +
                           (both(s[2]) * PAIRS(r + 2 * T3_D + j) + both(s[3]) * PAIRS(r + 3 * T3_D + j));
    }
    out[0] = value;
    g[T3_D] = bias;
}

/* T4: Σ (W₃·tanh(W₂·tanh(W₁·x + b₁) + b₂) + b₃ − t)², the weights of one input side by side. */
struct net {
    double w1[T4_D][T4_H], b1[T4_H], w2[T4_H][T4_H], b2[T4_H], w3[T4_H], b3;
};

/* h = tanh(b + inᵀ·w) for n inputs. */
INLINE void layer(const double *in, int n, const double (*w)[T4_H], const double *b, double *h) {
    pair s[T4_H / 2];
#pragma GCC unroll 8
    for (int j = 0; j < T4_H / 2; j++) s[j] = PAIRS(b + 2 * j);
    for (int i = 0; i < n; i++)
#pragma GCC unroll 8
        for (int j = 0; j < T4_H / 2; j++) s[j] += both(in[i]) * PAIRS(w[i] + 2 * j);
#pragma GCC unroll 8
    for (int j = 0; j < T4_H / 2; j++) PAIR(h + 2 * j) = s[j];
    for (int j = 0; j < T4_H; j++) h[j] = tanh(h[j]);
}

/* Adds the gradient of a layer's weights and biases, d its adjoint. */
INLINE void layer_adjoint(const double *in, int n, const double *d, double (*gw)[T4_H], double *gb) {
    pair s[T4_H / 2];
#pragma GCC unroll 8
    for (int j = 0; j < T4_H / 2; j++) PAIR(gb + 2 * j) += s[j] = PAIRS(d + 2 * j);
    for (int i = 0; i < n; i++)
#pragma GCC unroll 8
        for (int j = 0; j < T4_H / 2; j++) PAIR(gw[i] + 2 * j) += both(in[i]) * s[j];
}

static void t4_grad(const double *restrict x, const double *restrict data, double *restrict out) {
    const struct net *restrict net = (const struct net *)x;
    struct net *restrict g = (struct net *)(out + 1);
    const double *target = data + BATCH * T4_D;
    double value = 0.0;
    memset(g, 0, sizeof *g);
    for (int n = 0; n < BATCH; n++) {
        const double *restrict in = data + n * T4_D;
        double h1[T4_H], h2[T4_H], d1[T4_H], d2[T4_H];
        layer(in, T4_D, net->w1, net->b1, h1);
        layer(h1, T4_H, net->w2, net->b2, h2);
        double r = net->b3 + dot8(net->w3, h2, T4_H) - target[n], d = 2.0 * r;
        value += r * r;
        g->b3 += d;
        for (int j = 0; j < T4_H; j += 2) {
            pair h = PAIRS(h2 + j);
            PAIR(g->w3 + j) += both(d) * h;
            PAIR(d2 + j) = both(d) * PAIRS(net->w3 + j) * (both(1.0) - h * h);
        }
        layer_adjoint(h1, T4_H, d2, g->w2, g->b2);
        for (int i = 0; i < T4_H; i++) d1[i] = dot8(net->w2[i], d2, T4_H) * (1.0 - h1[i] * h1[i]);
        layer_adjoint(in, T4_D, d1, g->w1, g->b1);
    }
    out[0] = value;
}

/* T5: Runge–Kutta steps of u′ = a·u − b·u·v, v′ = d·u·v − c·v; x = (a, b, c, d, u₀, v₀). */
static void t5_jvp(const double *x, const double *p, double *out) {
    double a = x[0], b = x[1], c = x[2], d = x[3], u = x[4], v = x[5], du = p[4], dv = p[5];
    static const double at[4] = {0.0, 0.5 * T5_DT, 0.5 * T5_DT, T5_DT}, weight[4] = {1.0, 2.0, 2.0, 1.0};
    for (int n = 0; n < T5_STEPS; n++) {
        double k = 0, l = 0, dk = 0, dl = 0, su = 0, sv = 0, dsu = 0, dsv = 0;
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            double U = u + at[q] * k, V = v + at[q] * l, dU = du + at[q] * dk, dV = dv + at[q] * dl;
            double uv = U * V, duv = dU * V + U * dV;
            k = a * U - b * uv, l = d * uv - c * V;
            dk = (a * dU + p[0] * U) - (b * duv + p[1] * uv), dl = (d * duv + p[3] * uv) - (c * dV + p[2] * V);
            su += weight[q] * k, sv += weight[q] * l, dsu += weight[q] * dk, dsv += weight[q] * dl;
        }
        u += T5_DT / 6.0 * su, v += T5_DT / 6.0 * sv, du += T5_DT / 6.0 * dsu, dv += T5_DT / 6.0 * dsv;
    }
    out[0] = u, out[1] = v, out[2] = du, out[3] = dv;
}

/* All six directions at once, in pairs; each parameter enters one equation only. */
static void t5_jac(const double *x, const double *data, double *out) {
    (void)data;
    double a = x[0], b = x[1], c = x[2], d = x[3], u = x[4], v = x[5];
    pair du[3] = {{0}, {0}, {1, 0}}, dv[3] = {{0}, {0}, {0, 1}};
    static const double at[4] = {0.0, 0.5 * T5_DT, 0.5 * T5_DT, T5_DT}, weight[4] = {1.0, 2.0, 2.0, 1.0};
    for (int n = 0; n < T5_STEPS; n++) {
        double k = 0, l = 0, su = 0, sv = 0;
        pair dk[3] = {{0}}, dl[3] = {{0}}, dsu[3] = {{0}}, dsv[3] = {{0}};
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            double U = u + at[q] * k, V = v + at[q] * l, uv = U * V;
            k = a * U - b * uv, l = d * uv - c * V;
            su += weight[q] * k, sv += weight[q] * l;
            double ku = a - b * V, kv = -b * U, lu = d * V, lv = d * U - c;
#pragma GCC unroll 3
            for (int j = 0; j < 3; j++) {
                pair dU = du[j] + both(at[q]) * dk[j], dV = dv[j] + both(at[q]) * dl[j];
                dk[j] = both(ku) * dU + both(kv) * dV;
                dl[j] = both(lu) * dU + both(lv) * dV;
                if (j == 0) dk[j] += (pair){U, -uv};
                if (j == 1) dl[j] += (pair){-V, uv};
                dsu[j] += both(weight[q]) * dk[j], dsv[j] += both(weight[q]) * dl[j];
            }
        }
        u += T5_DT / 6.0 * su, v += T5_DT / 6.0 * sv;
#pragma GCC unroll 3
        for (int j = 0; j < 3; j++) du[j] += both(T5_DT / 6.0) * dsu[j], dv[j] += both(T5_DT / 6.0) * dsv[j];
    }
    out[0] = u, out[1] = v;
#pragma GCC unroll 3
    for (int j = 0; j < 3; j++) PAIR(out + 2 + 2 * j) = du[j], PAIR(out + 8 + 2 * j) = dv[j];
}

/* T6: ADBench's Gaussian mixture with its Wishart prior (γ = 1, m = 0); x = (α, means, inverse covariance
   factors: logarithms of the diagonal, then the strict lower triangle by columns).
   With Qz = Q·(x − μ), the sums Σ w·Qz and Σ w·Qz·(x − μ)ᵀ are enough for every derivative. */
enum { T6_ICF = T6_D * (T6_D + 1) / 2 };

static double logsumexp(const double *v, double *weight) {
    double top = v[0], sum = 0.0;
    for (int k = 1; k < T6_K; k++) top = v[k] > top ? v[k] : top;
    for (int k = 0; k < T6_K; k++) sum += weight[k] = exp(v[k] - top);
    for (int k = 0; k < T6_K; k++) weight[k] /= sum;
    return top + log(sum);
}

static void t6_grad(const double *restrict x, const double *restrict data, double *restrict out) {
    const double *alpha = x, *mean = x + T6_K, *icf = x + T6_K + T6_K * T6_D;
    double *ga = out + 1, *gmean = ga + T6_K, *gicf = gmean + T6_K * T6_D;
    /* Q and the sums by columns, the upper triangle zero or unused, so that pairs start at an even row. */
    double q[T6_K][T6_D][T6_D] = {{{0}}}, sum_q[T6_K][T6_D][T6_D] = {{{0}}}, sum_z[T6_K][T6_D] = {{0}};
    double logdet[T6_K], weight[T6_K], sum_w[T6_K] = {0};
    double value = hand_t6_constant() - T6_N * logsumexp(alpha, ga);
    for (int k = 0; k < T6_K; k++) {
        const double *in = icf + k * T6_ICF, *l = in + T6_D;
        ga[k] *= -T6_N;
        logdet[k] = 0.0;
        for (int i = 0; i < T6_D; i++) {
            logdet[k] += in[i];
            q[k][i][i] = exp(in[i]);
            for (int j = i + 1; j < T6_D; j++) q[k][i][j] = *l++;
        }
    }
    for (int n = 0; n < T6_N; n++) {
        double c[T6_K][T6_D], main_term[T6_K];
        pair z[T6_K][T6_D / 2];
        for (int k = 0; k < T6_K; k++) {
            pair t[T6_D / 2] = {{0}}, s = {0};
#pragma GCC unroll 5
            for (int j = 0; j < T6_D; j += 2)
                PAIR(c[k] + j) = PAIRS(data + n * T6_D + j) - PAIRS(mean + k * T6_D + j);
#pragma GCC unroll 10
            for (int i = 0; i < T6_D; i++)
#pragma GCC unroll 5
                for (int j = i / 2; j < T6_D / 2; j++) t[j] += PAIRS(q[k][i] + 2 * j) * both(c[k][i]);
#pragma GCC unroll 5
            for (int j = 0; j < T6_D / 2; j++) z[k][j] = t[j], s += t[j] * t[j];
            main_term[k] = alpha[k] + logdet[k] - 0.5 * (s[0] + s[1]);
        }
        value += logsumexp(main_term, weight);
        for (int k = 0; k < T6_K; k++) {
            pair wz[T6_D / 2];
            sum_w[k] += weight[k];
#pragma GCC unroll 5
            for (int j = 0; j < T6_D / 2; j++) PAIR(sum_z[k] + 2 * j) += wz[j] = both(weight[k]) * z[k][j];
#pragma GCC unroll 10
            for (int i = 0; i < T6_D; i++)
#pragma GCC unroll 5
                for (int j = i / 2; j < T6_D / 2; j++) PAIR(sum_q[k][i] + 2 * j) += wz[j] * both(c[k][i]);
        }
    }
    for (int k = 0; k < T6_K; k++) {
        double *gm = gmean + k * T6_D, *gq = gicf + k * T6_ICF, *gl = gq + T6_D;
        ga[k] += sum_w[k];
        for (int i = 0; i < T6_D; i++) {
            double d = q[k][i][i];
            gm[i] = 0.0; /* ∂/∂μ = Qᵀ·Σ w·Qz */
            for (int j = i; j < T6_D; j++) gm[i] += q[k][i][j] * sum_z[k][j], value += 0.5 * q[k][i][j] * q[k][i][j];
            gq[i] = sum_w[k] + d * (d - sum_q[k][i][i]);
            for (int j = i + 1; j < T6_D; j++) *gl++ = q[k][i][j] - sum_q[k][i][j];
        }
    }
    out[0] = value;
}

/* T7: ADBench's reprojection residual; x = (rotation 3, centre 3, focal length, principal point 2,
   radial distortion 2, point 3, weight), data = the point seen. Residuals first, then the 2×15 Jacobians. */
INLINE void cross(const double *a, const double *b, double *c) {
    c[0] = a[1] * b[2] - a[2] * b[1], c[1] = a[2] * b[0] - a[0] * b[2], c[2] = a[0] * b[1] - a[1] * b[0];
}

static void t7_jac(const double *restrict all, const double *restrict seen, double *restrict out) {
    for (int n = 0; n < T7_N; n++) {
        const double *restrict x = all + n * T7_X, *feat = seen + 2 * n;
        double *restrict err = out + 2 * n, *restrict jac = out + 2 * T7_N + 2 * T7_X * n;
        double theta = sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]), inv = 1.0 / theta;
        double co = cos(theta), si = sin(theta), ve = 1.0 - co;
        double w[3], y[3], wy[3], cam[3], by_theta[3];
        for (int i = 0; i < 3; i++) w[i] = x[i] * inv, y[i] = x[11 + i] - x[3 + i];
        cross(w, y, wy);
        double wdy = w[0] * y[0] + w[1] * y[1] + w[2] * y[2];
        for (int i = 0; i < 3; i++) {
            cam[i] = co * y[i] + si * wy[i] + ve * wdy * w[i];
            by_theta[i] = co * wy[i] - si * (y[i] - wdy * w[i]);
        }
        double iz = 1.0 / cam[2], pu = cam[0] * iz, pv = cam[1] * iz, r2 = pu * pu + pv * pv;
        double scale = 1.0 + r2 * (x[9] + r2 * x[10]), slope = 2.0 * (x[9] + 2.0 * x[10] * r2);
        double f = x[6], wt = x[14], g = wt * f * iz;
        double eu = f * scale * pu + x[7] - feat[0], ev = f * scale * pv + x[8] - feat[1];
        err[0] = wt * eu, err[1] = wt * ev;
        double uu = scale + slope * pu * pu, uv = slope * pu * pv, vv = scale + slope * pv * pv;
        double e[2][3] = {{g * uu, g * uv, -g * (pu * uu + pv * uv)}, {g * uv, g * vv, -g * (pu * uv + pv * vv)}};
        double point[2] = {pu, pv}, miss[2] = {eu, ev};
        for (int r = 0; r < 2; r++) {
            double *restrict j = jac + r * T7_X, ye[3], ew[3];
            double edw = e[r][0] * w[0] + e[r][1] * w[1] + e[r][2] * w[2];
            double turn = e[r][0] * by_theta[0] + e[r][1] * by_theta[1] + e[r][2] * by_theta[2];
            cross(y, e[r], ye);
            cross(e[r], w, ew);
            /* m = e·∂cam/∂axis; the axis is the rotation over its length. */
            double m[3], mw;
            for (int i = 0; i < 3; i++) m[i] = si * ye[i] + ve * (wdy * e[r][i] + edw * y[i]);
            mw = m[0] * w[0] + m[1] * w[1] + m[2] * w[2];
            for (int i = 0; i < 3; i++) {
                double moved = co * e[r][i] + si * ew[i] + ve * edw * w[i];
                j[i] = turn * w[i] + inv * (m[i] - mw * w[i]);
                j[3 + i] = -moved;
                j[11 + i] = moved;
            }
            j[6] = wt * scale * point[r];
            j[7] = r == 0 ? wt : 0.0;
            j[8] = r == 1 ? wt : 0.0;
            j[9] = wt * f * r2 * point[r];
            j[10] = r2 * j[9];
            j[14] = miss[r];
        }
    }
}

/* T8: det A by LU without pivoting; its gradient is det A · A⁻ᵀ, solved for by rows. */
static void t8_grad(const double *restrict x, const double *restrict data, double *restrict out) {
    (void)data;
    double a[T8_N][T8_N], y[T8_N][T8_N], inv[T8_N], det = 1.0;
    memcpy(a, x, sizeof a);
#pragma GCC unroll 12
    for (int k = 0; k < T8_N; k++) {
        det *= a[k][k];
        inv[k] = 1.0 / a[k][k];
        for (int i = k + 1; i < T8_N; i++) {
            double l = a[i][k] * inv[k];
#pragma GCC unroll 6
            for (int j = (k + 1) / 2 * 2; j < T8_N; j += 2) PAIR(a[i] + j) -= both(l) * PAIRS(a[k] + j);
            a[i][k] = l;
        }
    }
    /* Y = det·U⁻ᵀ, lower triangular. */
#pragma GCC unroll 12
    for (int i = 0; i < T8_N; i++) {
        pair s[T8_N / 2] = {{0}};
        s[i / 2][i % 2] = det;
#pragma GCC unroll 12
        for (int k = 0; k < i; k++)
#pragma GCC unroll 6
            for (int j = 0; j <= k / 2; j++) s[j] -= both(a[k][i]) * PAIRS(y[k] + 2 * j);
#pragma GCC unroll 6
        for (int j = 0; j < T8_N / 2; j++) PAIR(y[i] + 2 * j) = s[j] * both(inv[i]);
    }
    /* Lᵀ·G = Y. */
    double(*restrict g)[T8_N] = (double(*)[T8_N])(out + 1);
#pragma GCC unroll 12
    for (int i = T8_N - 1; i >= 0; i--) {
        pair s[T8_N / 2];
#pragma GCC unroll 6
        for (int j = 0; j < T8_N / 2; j++) s[j] = PAIRS(y[i] + 2 * j);
        for (int k = i + 1; k < T8_N; k++)
#pragma GCC unroll 6
            for (int j = 0; j < T8_N / 2; j++) s[j] -= both(a[k][i]) * PAIRS(g[k] + 2 * j);
#pragma GCC unroll 6
        for (int j = 0; j < T8_N / 2; j++) PAIR(g[i] + 2 * j) = s[j];
    }
    out[0] = det;
}

double hand_t6_constant(void) {
    static double constant;
    if (constant == 0.0) {
        double dof = T6_D + 1, log_gamma = 0.25 * T6_D * (T6_D - 1) * log(M_PI);
        for (int j = 1; j <= T6_D; j++) log_gamma += lgamma(0.5 * dof + 0.5 * (1 - j));
        constant = -0.5 * T6_N * T6_D * log(2.0 * M_PI) - T6_K * (-0.5 * dof * T6_D * log(2.0) - log_gamma);
    }
    return constant;
}

/* splitmix64; fill's values are lo + (hi − lo)·u with u in [0, 1), the same in peers.py. */
static uint64_t splitmix64(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void fill(uint64_t seed, double *v, int n, double lo, double hi) {
    for (int i = 0; i < n; i++) v[i] = lo + (hi - lo) * ((double)(splitmix64(&seed) >> 11) * 0x1p-53);
}

static struct task tasks[TASKS] = {
    {"T1_jvp", 2, 2, 1, 2, t1_jvp, 0, 0},
    {"T2_jvp", T2_N, T2_N, 1, 2, t2_jvp, 0, 0},
    {"T2_grad", T2_N, 0, 1, 1 + T2_N, t2_grad, 0, 0},
    {"T3_grad", T3_D + 1, BATCH * (T3_D + 1), BATCHES, 2 + T3_D, t3_grad, 0, 0},
    {"T4_grad", sizeof(struct net) / sizeof(double), BATCH * (T4_D + 1), BATCHES,
     1 + sizeof(struct net) / sizeof(double), t4_grad, 0, 0},
    {"T5_jvp", 6, 6, 1, 4, t5_jvp, 0, 0},
    {"T5_jac", 6, 0, 1, 14, t5_jac, 0, 0},
    {"T6_grad", T6_K * (1 + T6_D + T6_ICF), T6_N * T6_D, 1, 1 + T6_K * (1 + T6_D + T6_ICF), t6_grad, 0, 0},
    {"T7_jac", T7_N * T7_X, T7_N * 2, 1, T7_N * (2 + 2 * T7_X), t7_jac, 0, 0},
    {"T8_grad", T8_N * T8_N, 0, 1, 1 + T8_N * T8_N, t8_grad, 0, 0},
};

/* Seeds: 10·(task number) for x, one more for data. */
static void init(void) {
    static const double classical[2] = {2.0, 4.0}, lotka_volterra[6] = {1.5, 1.0, 3.0, 1.0, 2.0, 1.0};
    static const double lo[T7_X] = {-0.5, -0.5, -0.5, -1, -1, -1, 0.8, -0.1, -0.1, -0.1, -0.1, -1, -1, 4, 0.5};
    static const double hi[T7_X] = {0.5, 0.5, 0.5, 1, 1, 1, 1.2, 0.1, 0.1, 0.1, 0.1, 1, 1, 6, 1.5};
    static const double range[TASKS][4] = {
        [T1_JVP] = {0, 1, -1, 1},       [T2_JVP] = {0.5, 1.5, -1, 1}, [T2_GRAD] = {0.5, 1.5, 0, 1},
        [T3_GRAD] = {-0.3, 0.3, -1, 1}, [T4_GRAD] = {-0.5, 0.5, -1, 1}, [T5_JVP] = {0, 1, -1, 1},
        [T5_JAC] = {0, 1, 0, 1},        [T6_GRAD] = {-0.5, 0.5, -2, 2}, [T7_JAC] = {0, 1, -0.5, 0.5},
        [T8_GRAD] = {-1, 1, 0, 1},
    };
    for (int id = 0; id < TASKS; id++) {
        struct task *t = &tasks[id];
        uint64_t seed = 10 * (uint64_t)(t->name[1] - '0');
        t->x = malloc(t->nx * sizeof(double));
        t->data = malloc(((size_t)t->ndata * t->batches + 1) * sizeof(double));
        if (!t->x || !t->data) abort();
        fill(seed, t->x, t->nx, range[id][0], range[id][1]);
        fill(seed + 1, t->data, t->ndata * t->batches, range[id][2], range[id][3]);
    }
    memcpy(tasks[T1_JVP].x, classical, sizeof classical);
    memcpy(tasks[T5_JVP].x, lotka_volterra, sizeof lotka_volterra);
    memcpy(tasks[T5_JAC].x, lotka_volterra, sizeof lotka_volterra);
    for (int k = 0; k < BATCHES; k++) {
        double *label = tasks[T3_GRAD].data + (size_t)k * tasks[T3_GRAD].ndata + BATCH * T3_D;
        for (int i = 0; i < BATCH; i++) label[i] = label[i] < 0.0 ? -1.0 : 1.0;
    }
    for (int i = 0; i < T7_N * T7_X; i++) {
        int j = i % T7_X;
        tasks[T7_JAC].x[i] = lo[j] + (hi[j] - lo[j]) * tasks[T7_JAC].x[i];
    }
    for (int i = 0; i < T8_N; i++) tasks[T8_GRAD].x[i * (T8_N + 1)] += 3.0;
}

const struct task *hand_task(int id) {
    if (!tasks[0].x) init();
    return &tasks[id];
}

double hand_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

double hand_time(int id, long calls, double *out) {
    const struct task *t = hand_task(id);
    double start = hand_now();
    for (long i = 0, k = 0; i < calls; i++) {
        t->run(t->x, t->data + k * t->ndata, out);
        k = k + 1 == t->batches ? 0 : k + 1;
    }
    return (hand_now() - start) / (double)calls;
}
