// Runs a command with its stdout to a pipe that another process empties, and prints on
// its own stdout: seconds until it ended, seconds of CPU, peak KiB of resident memory,
// bytes and lines written. Small, so that what it forks has little memory of its own.
// Usage: timed COMMAND ARG…
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}
static double seconds(struct timeval t) { return t.tv_sec + t.tv_usec * 1e-6; }
int main(int argc, char **argv) {
    int out[2], said[2];
    if (argc < 2 || pipe(out) || pipe(said)) return 2;
    pid_t reader = fork();
    if (!reader) {
        static char buffer[1 << 18];
        long got, sums[2] = {0, 0};
        close(out[1]);
        while ((got = read(out[0], buffer, sizeof buffer)) > 0) {
            sums[0] += got;
            for (char *at = buffer; (at = memchr(at, '\n', buffer + got - at)); at++) sums[1]++;
        }
        return write(said[1], sums, sizeof sums) != sizeof sums;
    }
    double begun = now();
    pid_t command = fork();
    if (!command) {
        dup2(out[1], 1);
        close(out[0]);
        close(out[1]);
        execvp(argv[1], argv + 1);
        perror(argv[1]);
        _exit(127);
    }
    close(out[1]);
    int status;
    struct rusage used;
    if (wait4(command, &status, 0, &used) < 0) return 1;
    double took = now() - begun;
    long sums[2];
    if (read(said[0], sums, sizeof sums) != sizeof sums) return 1;
    waitpid(reader, 0, 0);
    printf("%.6f %.6f %ld %ld %ld\n", took, seconds(used.ru_utime) + seconds(used.ru_stime), used.ru_maxrss, sums[0], sums[1]);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
