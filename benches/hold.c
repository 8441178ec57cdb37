// The floor that the project is measured against: the least code that holds N
// loopback connections. One server process and one client process; in each,
// threads with fd tables of their own (unshare(CLONE_FILES)), so that the
// per-table RLIMIT_NOFILE does not bound the process. Ports are chosen, not
// searched for. Usage: hold server PORT N | hold client PORT N FILLING
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int port, total, per_table;
static atomic_int done, turn;
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}
static int listener;
static void *accepting(void *arg) {
    (void)arg;
    unshare(CLONE_FILES);
    for (int i = 0; i < per_table; i++)
        if (accept4(listener, 0, 0, SOCK_NONBLOCK) < 0) { perror("accept"); break; }
    pause();
    return 0;
}
#define WINDOW 64
static void *dialing(void *arg) {
    long first = (long)arg, n = total - first < per_table ? total - first : per_table;
    unshare(CLONE_FILES);
    int ep = epoll_create1(0), open_dials = 0, one = 1;
    struct epoll_event ev[WINDOW];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (long i = 0; i < n || open_dials;) {
        while (i < n && open_dials < WINDOW) {
            long k = first + i++;
            struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(20000 + k % 20000)};
            from.sin_addr.s_addr = htonl(0x7f010001 + k / 20000);
            int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
            if (fd < 0) { perror("socket"); exit(1); }
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
            if (bind(fd, (void *)&from, sizeof from)) { perror("bind"); exit(1); }
            if (connect(fd, (void *)&to, sizeof to) && errno != EINPROGRESS) { perror("connect"); exit(1); }
            struct epoll_event e = {.events = EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.fd = fd};
            epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
            open_dials++;
        }
        int got = epoll_wait(ep, ev, WINDOW, -1);
        for (int j = 0; j < got; j++) {
            if (ev[j].events & (EPOLLERR | EPOLLHUP)) { fprintf(stderr, "dial failed\n"); exit(1); }
            open_dials--;
            atomic_fetch_add(&done, 1);
        }
    }
    atomic_fetch_add(&turn, 1);
    pause();
    return 0;
}
int main(int argc, char **argv) {
    if (argc < 4) return 2;
    port = atoi(argv[2]);
    total = atoi(argv[3]);
    struct rlimit lim;
    getrlimit(RLIMIT_NOFILE, &lim);
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
    per_table = (int)lim.rlim_max - 50;
    int tables = (total + per_table - 1) / per_table;
    pthread_t t;
    if (argv[1][0] == 's') {
        int one = 1;
        listener = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (bind(listener, (void *)&at, sizeof at) || listen(listener, 65535)) { perror("listen"); return 1; }
        for (int i = 0; i < tables + 1; i++) pthread_create(&t, 0, accepting, 0);
        printf("ready\n");
        fflush(stdout);
        pause();
    }
    int filling = argc > 4 ? atoi(argv[4]) : 2, started = 0;
    double t0 = now();
    while (turn < tables) {
        while (started < tables && started - turn < filling)
            pthread_create(&t, 0, dialing, (void *)((long)started++ * per_table));
        usleep(2000);
    }
    double secs = now() - t0;
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    printf("held %d in %.2f s, %.0f/s, rss %ld kB\n", done, secs, done / secs, use.ru_maxrss);
    fflush(stdout);
    pause();
    return 0;
}
