// Holds PAIRS loopback connections, both ends of each, in PROCESSES processes with a
// listener of its own each: the sockets that benches/sockets lists.
// Usage: spread PAIRS PROCESSES; prints "ready" once all are there.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what) {
    perror(what);
    exit(1);
}
static struct sockaddr_in at(unsigned ip, int port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(ip)};
}
static int reusable(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    return fd;
}
static void hold(int process, int pairs, int done) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int listener = reusable();
    struct sockaddr_in to = at(0x7f010001 + process * 256, 10000);
    if (bind(listener, (void *)&to, sizeof to)) die("bind");
    if (listen(listener, 1024)) die("listen");
    for (int i = 0; i < pairs; i++) {
        int client = reusable();
        struct sockaddr_in from = at(0x7f020001 + process * 256 + i / 40000, 20000 + i % 40000);
        if (bind(client, (void *)&from, sizeof from)) die("bind");
        if (connect(client, (void *)&to, sizeof to)) die("connect");
        if (accept(listener, 0, 0) < 0) die("accept");
    }
    if (write(done, "", 1) != 1) die("write");
    for (;;) pause();
}
int main(int argc, char **argv) {
    int done[2];
    if (argc != 3 || pipe(done)) return 2;
    int pairs = atoi(argv[1]), processes = atoi(argv[2]);
    for (int i = 0; i < processes; i++) {
        pid_t child = fork();
        if (child < 0) die("fork");
        if (!child) {
            close(done[0]);
            hold(i, pairs / processes, done[1]);
        }
    }
    close(done[1]);
    for (int i = 0; i < processes; i++) {
        char byte;
        // The others end with this process.
        if (read(done[0], &byte, 1) != 1) die("a process ended");
    }
    printf("ready\n");
    fflush(stdout);
    for (;;) pause();
}
