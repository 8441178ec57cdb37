// hold.c's client on io_uring: holds N loopback connections, dialed in batches, and says
// what they cost. Raw system calls: Debian's liburing is older than IORING_OP_BIND (6.11).
// Usage: uring PORT N FILLING HOW BATCH WATCH RING
//   HOW    direct    SOCKET, SETSOCKOPT, BIND, CONNECT linked, in direct descriptors
//          no-reuse  the same without SO_REUSEADDR: a port in TIME_WAIT cannot be taken
//          no-bind   SOCKET, CONNECT linked: the kernel searches for the port
//          install   as direct, then FIXED_FD_INSTALL: a descriptor in the table as well
//          install-u, direct-u, fds-u   the same in this order, but not linked
//          fds       a batch of SOCKETs; then SETSOCKOPT, BIND, CONNECT linked, by fd
//          connect   socket(), setsockopt(), bind(); CONNECT in batches
//          epoll     no ring at all: socket(), setsockopt(), bind() for a batch, then all
//                    connect(), then all epoll_ctl(): what batches alone are worth
//          epoll-1   the same, one connection after the other, as hold.c
//   WATCH  1: be told when the server ends one (POLL_ADD or EPOLL_CTL at the link's end)
//   RING   defer (SINGLE_ISSUER | DEFER_TASKRUN), coop (COOP_TASKRUN), plain
// `uring options` says which options of a direct descriptor can be read through the ring.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// Newer than the headers of Debian 12.
enum { OP_FIXED_FD_INSTALL = 54, OP_BIND = 56 };
enum { CMD_GETSOCKOPT = 2, CMD_SETSOCKOPT = 3 };
enum { SETUP_SINGLE_ISSUER = 1 << 12, SETUP_DEFER_TASKRUN = 1 << 13 };

enum how { DIRECT, NO_REUSE, NO_BIND, INSTALL, FDS, CONNECT, EPOLL, EPOLL_1, HOWS };
static const char *const hows[HOWS] = {"direct", "no-reuse", "no-bind", "install", "fds", "connect",
                                       "epoll", "epoll-1"};
static unsigned link_flag = IOSQE_IO_LINK;
static int port, total, per_table, batch = 512, watch, one = 1;
static unsigned ring_flags;
static enum how how;
static atomic_int done, turn;

struct ring {
    int fd;
    unsigned *sq_tail, *cq_head, *cq_tail, sq_mask, cq_mask, queued;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}
static void fail(const char *what) {
    perror(what);
    exit(1);
}

static struct ring ring_new(unsigned entries, unsigned files) {
    struct io_uring_params p = {.flags = ring_flags};
    struct ring r = {.fd = syscall(SYS_io_uring_setup, entries, &p)};
    if (r.fd < 0) fail("io_uring_setup");
    size_t size = p.sq_off.array + p.sq_entries * sizeof(unsigned); // its last part
    char *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r.fd, IORING_OFF_SQ_RING);
    r.sqes = mmap(0, p.sq_entries * sizeof *r.sqes, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_POPULATE, r.fd, IORING_OFF_SQES);
    if (at == MAP_FAILED || r.sqes == MAP_FAILED) fail("mmap");
    r.sq_tail = (void *)(at + p.sq_off.tail);
    r.sq_mask = p.sq_entries - 1;
    r.cq_head = (void *)(at + p.cq_off.head);
    r.cq_tail = (void *)(at + p.cq_off.tail);
    r.cq_mask = p.cq_entries - 1;
    r.cqes = (void *)(at + p.cq_off.cqes);
    unsigned *order = (void *)(at + p.sq_off.array);
    for (unsigned i = 0; i < p.sq_entries; i++) order[i] = i;
    struct io_uring_rsrc_register table = {.nr = files, .flags = IORING_RSRC_REGISTER_SPARSE};
    if (files && syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_FILES2, &table, sizeof table))
        fail("a table of direct descriptors");
    return r;
}

// The next entry of the batch, zeroed but for what each has.
static struct io_uring_sqe *entry(struct ring *r, int op, int fd, unsigned flags, long i) {
    struct io_uring_sqe *e = &r->sqes[(*r->sq_tail + r->queued++) & r->sq_mask];
    memset(e, 0, sizeof *e);
    e->opcode = op, e->fd = fd, e->flags = flags, e->user_data = i;
    return e;
}
static void sockopt(struct io_uring_sqe *e, int cmd, int level, int name, void *value, int len) {
    e->cmd_op = cmd;
    e->addr = (unsigned)level | (__u64)name << 32;
    e->file_index = len;
    e->addr3 = (__u64)value;
}

// Submits the batch, waits for `wanted` completions, and gives those to `each`.
static void enter(struct ring *r, int wanted, void (*each)(void *, struct io_uring_cqe *), void *arg) {
    atomic_store_explicit((_Atomic unsigned *)r->sq_tail, *r->sq_tail + r->queued, memory_order_release);
    while (wanted > 0 || r->queued) {
        int n = syscall(SYS_io_uring_enter, r->fd, r->queued, wanted, IORING_ENTER_GETEVENTS, 0, 0);
        if (n < 0 && errno != EINTR) fail("io_uring_enter");
        if (n > 0) r->queued -= n;
        unsigned tail = atomic_load_explicit((_Atomic unsigned *)r->cq_tail, memory_order_acquire);
        unsigned head = *r->cq_head;
        for (; head != tail; head++, wanted--) each(arg, &r->cqes[head & r->cq_mask]);
        atomic_store_explicit((_Atomic unsigned *)r->cq_head, head, memory_order_release);
    }
}
static void dialed(void *epoll, struct io_uring_cqe *c) {
    if (c->res < 0) { errno = -c->res, fail("a dial"); }
    struct epoll_event e = {EPOLLET | EPOLLRDHUP, {.fd = c->res}};
    if (how == INSTALL && watch) epoll_ctl(*(int *)epoll, EPOLL_CTL_ADD, c->res, &e);
    atomic_fetch_add(&done, 1);
}
static void made(void *fds, struct io_uring_cqe *c) {
    if (c->res < 0) { errno = -c->res, fail("IORING_OP_SOCKET"); }
    ((int *)fds)[c->user_data % batch] = c->res;
}

static struct sockaddr_in source(long k) {
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(20000 + k % 20000)};
    from.sin_addr.s_addr = htonl(0x7f010001 + k / 20000);
    return from;
}
// The addresses of a batch: the kernel copies them when the entry is submitted.
struct dials {
    struct ring ring;
    int epoll, *fds;
    struct sockaddr_in *from;
    struct epoll_event *events;
};

// Entries for connection i of this thread and k of all, whose socket (if it has one by
// now) is fd.
static void dial(struct dials *d, long i, long k, int fd) {
    static struct sockaddr_in to;
    to.sin_family = AF_INET, to.sin_port = htons(port), to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct ring *r = &d->ring;
    struct io_uring_sqe *e;
    int direct = how < FDS;
    // One completion for each connection, that of connect; the others only if they fail.
    unsigned quiet = link_flag | IOSQE_CQE_SKIP_SUCCESS, fixed = direct ? IOSQE_FIXED_FILE : 0;
    if (direct) {
        e = entry(r, IORING_OP_SOCKET, AF_INET, quiet, i);
        e->off = SOCK_STREAM, e->file_index = i + 1, fd = i;
    }
    if (how == DIRECT || how == INSTALL || how == FDS)
        sockopt(entry(r, IORING_OP_URING_CMD, fd, quiet | fixed, i), CMD_SETSOCKOPT, SOL_SOCKET,
                SO_REUSEADDR, &one, sizeof one);
    if (how != NO_BIND && how != CONNECT) {
        d->from[i % batch] = source(k);
        e = entry(r, OP_BIND, fd, quiet | fixed, i);
        e->addr = (__u64)&d->from[i % batch], e->addr2 = sizeof *d->from;
    }
    int last = !watch && how != INSTALL;
    e = entry(r, IORING_OP_CONNECT, fd, fixed | (last ? 0 : link_flag), i);
    e->addr = (__u64)&to, e->off = sizeof to;
    if (how == INSTALL) {
        // Its completion says which descriptor it is; connect's is the quiet one.
        e->flags |= IOSQE_CQE_SKIP_SUCCESS;
        entry(r, OP_FIXED_FD_INSTALL, fd, IOSQE_FIXED_FILE, i);
    } else if (watch && direct) {
        entry(r, IORING_OP_POLL_ADD, fd, fixed, i)->poll32_events = EPOLLRDHUP;
    } else if (watch) {
        d->events[i % batch] = (struct epoll_event){EPOLLET | EPOLLRDHUP, {.fd = fd}};
        e = entry(r, IORING_OP_EPOLL_CTL, d->epoll, IOSQE_CQE_SKIP_SUCCESS, i);
        e->off = fd, e->len = EPOLL_CTL_ADD, e->addr = (__u64)&d->events[i % batch];
    }
}
static int bound(long k, int flags) {
    struct sockaddr_in from = source(k);
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&from, sizeof from)) fail("bind");
    return fd;
}
static void connect_fd(int fd) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (void *)&to, sizeof to) && errno != EINPROGRESS) fail("connect");
}
static void watch_fd(int epoll, int fd) {
    struct epoll_event e = {EPOLLOUT | EPOLLET | EPOLLRDHUP, {.fd = fd}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) fail("epoll_ctl");
}
// m connections by plain system calls, the batch phase by phase or one by one.
static void dial_without_ring(struct dials *d, long k, int m) {
    for (int j = 0; j < m; j++) {
        d->fds[j] = bound(k + j, SOCK_NONBLOCK);
        if (how == EPOLL_1) connect_fd(d->fds[j]), watch_fd(d->epoll, d->fds[j]);
    }
    for (int j = 0; j < m && how == EPOLL; j++) connect_fd(d->fds[j]);
    for (int j = 0; j < m && how == EPOLL; j++) watch_fd(d->epoll, d->fds[j]);
    for (int got; m > 0; m -= got) {
        got = epoll_wait(d->epoll, d->events, batch, -1);
        if (got < 0) fail("epoll_wait");
        for (int j = 0; j < got; j++)
            if (d->events[j].events & (EPOLLERR | EPOLLHUP)) fail("a dial");
        atomic_fetch_add(&done, got);
    }
}
static void *dialing(void *arg) {
    long first = (long)arg, n = total - first < per_table ? total - first : per_table;
    int direct = how < FDS;
    // Direct descriptors are in no fd table: only these need one of their own.
    if (!direct || how == INSTALL) unshare(CLONE_FILES);
    struct dials d = {.ring = ring_new(batch * 5, direct ? n : 0), .epoll = epoll_create1(0)};
    d.fds = calloc(batch, sizeof *d.fds);
    d.from = calloc(batch, sizeof *d.from);
    d.events = calloc(batch, sizeof *d.events);
    for (long i = 0; i < n;) {
        int m = n - i < batch ? n - i : batch;
        if (how >= EPOLL) {
            dial_without_ring(&d, first + i, m);
            i += m;
            continue;
        }
        if (how == FDS) {
            for (int j = 0; j < m; j++) entry(&d.ring, IORING_OP_SOCKET, AF_INET, 0, i + j)->off = SOCK_STREAM;
            enter(&d.ring, m, made, d.fds);
        }
        for (int j = 0; j < m; j++, i++) {
            long k = first + i;
            dial(&d, i, k, how == CONNECT ? bound(k, 0) : d.fds[i % batch]);
        }
        enter(&d.ring, m, dialed, &d.epoll);
    }
    atomic_fetch_add(&turn, 1);
    pause();
    return 0;
}
static void said(void *arg, struct io_uring_cqe *c) { *(int *)arg = c->res; }

// Which options of a direct descriptor can be read: sockscope needs TCP_INFO.
static int options(void) {
    struct ring r = ring_new(8, 1);
    struct tcp_info info;
    int res, value;
    struct io_uring_sqe *e = entry(&r, IORING_OP_SOCKET, AF_INET, 0, 0);
    e->off = SOCK_STREAM, e->file_index = 1;
    enter(&r, 1, said, &res);
    sockopt(entry(&r, IORING_OP_URING_CMD, 0, IOSQE_FIXED_FILE, 0), CMD_GETSOCKOPT, SOL_SOCKET, SO_ERROR,
            &value, sizeof value);
    enter(&r, 1, said, &res);
    printf("SO_ERROR: %s\n", res < 0 ? strerror(-res) : "read");
    sockopt(entry(&r, IORING_OP_URING_CMD, 0, IOSQE_FIXED_FILE, 0), CMD_GETSOCKOPT, IPPROTO_TCP, TCP_INFO,
            &info, sizeof info);
    enter(&r, 1, said, &res);
    printf("TCP_INFO: %s\n", res < 0 ? strerror(-res) : "read");
    return 0;
}
int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "options")) return options();
    if (argc < 8) return 2;
    port = atoi(argv[1]), total = atoi(argv[2]);
    int filling = atoi(argv[3]), started = 0;
    char *unlinked = strstr(argv[4], "-u");
    if (unlinked) *unlinked = 0, link_flag = 0;
    while (how < HOWS && strcmp(argv[4], hows[how])) how++;
    batch = atoi(argv[5]), watch = atoi(argv[6]);
    if (argv[7][0] == 'd') ring_flags = SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN;
    if (argv[7][0] == 'c') ring_flags = IORING_SETUP_COOP_TASKRUN;
    if (how == HOWS || batch < 1) return 2;
    struct rlimit lim;
    getrlimit(RLIMIT_NOFILE, &lim);
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
    per_table = (int)lim.rlim_max - 50;
    int tables = (total + per_table - 1) / per_table;
    pthread_t t;
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
