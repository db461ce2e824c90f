/* The tasks that the peers are compared on: their inputs, and their derivatives written by hand. */
#ifndef HAND_H
#define HAND_H

#ifdef __cplusplus
extern "C" {
#endif

enum { T1_JVP, T2_JVP, T2_GRAD, T3_GRAD, T4_GRAD, T5_JVP, T5_JAC, T6_GRAD, T7_JAC, T8_GRAD, TASKS };

enum { T2_N = 1000 };                      /* chained Rosenbrock */
enum { T3_D = 64, T4_D = 8, T4_H = 16 };   /* minibatches: features, hidden units */
enum { BATCH = 256, BATCHES = 8 };         /* samples in a minibatch, minibatches taken in turn */
enum { T5_STEPS = 100 };                   /* Runge–Kutta steps of T5_DT */
enum { T6_D = 10, T6_K = 5, T6_N = 1000 }; /* Gaussian mixture: dimensions, components, points */
enum { T7_N = 1000, T7_X = 15 };           /* reprojections and their variables */
enum { T8_N = 12 };                        /* rows of the matrix */
#define T5_DT 0.02

/* One call is `run(x, data + k * ndata, out)`, k running through `0 .. batches`:
   x is what is differentiated by, data the direction p, the samples or the points,
   out the value or values followed by the derivatives, matrices by rows. */
struct task {
    const char *name;
    int nx, ndata, batches, nout;
    void (*run)(const double *x, const double *data, double *out);
    double *x, *data;
};

/* The tasks with their inputs filled in; the first call allocates them. */
const struct task *hand_task(int id);

/* The additive constant of T6's value. */
double hand_t6_constant(void);

/* Nanoseconds of a call by hand, the mean of `calls`, the minibatches in turn. */
double hand_time(int id, long calls, double *out);

/* Nanoseconds of processor time that this process has spent: what else runs on the core does not count. */
double hand_now(void);

#ifdef __cplusplus
}
#endif
#endif
