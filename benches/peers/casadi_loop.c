/* Calls a CasADi function in a loop without Python in between, whether compiled or run by its virtual machine. */
#include "hand.h"

typedef int (*compiled_fn)(const double **arg, double **res, long long *iw, double *w, int mem);
typedef int (*machine_fn)(int id, const double **arg, double **res, long long *iw, double *w, int mem);

/* One of `compiled` and `machine` is null. Argument i of call k is base[i] + (k mod batches)·step[i].
   Returns the mean nanoseconds of a call, or −1 when a call failed. */
double casadi_time(compiled_fn compiled, machine_fn machine, int id, int mem, long calls, int nargs,
                   const double *const *base, const long *step, long batches,
                   const double **arg, double **res, long long *iw, double *w) {
    double start = hand_now();
    int failed = 0;
    for (long i = 0, k = 0; i < calls; i++) {
        for (int a = 0; a < nargs; a++) arg[a] = base[a] + k * step[a];
        failed |= compiled ? compiled(arg, res, iw, w, mem) : machine(id, arg, res, iw, w, mem);
        k = k + 1 == batches ? 0 : k + 1;
    }
    return failed ? -1.0 : (hand_now() - start) / (double)calls;
}
