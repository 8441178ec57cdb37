// The floor of listing TCP sockets: one sock_diag dump of the IPv4 table, its rows
// counted and nothing else done with them. Usage: diag; prints how many they were.
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

int main(void) {
    static char buffer[1 << 20];
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } ask = {
        .header = {.nlmsg_len = sizeof ask, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .request = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0u},
    };
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0 || send(fd, &ask, sizeof ask, 0) < 0) { perror("sock_diag"); return 1; }
    long rows = 0;
    unsigned long inodes = 0;
    for (;;) {
        long got = recv(fd, buffer, sizeof buffer, 0);
        if (got <= 0) { perror("recv"); return 1; }
        for (struct nlmsghdr *one = (void *)buffer; NLMSG_OK(one, got); one = NLMSG_NEXT(one, got)) {
            if (one->nlmsg_type == NLMSG_ERROR) { fprintf(stderr, "refused\n"); return 1; }
            if (one->nlmsg_type == NLMSG_DONE) { printf("%ld sockets (%lu)\n", rows, inodes); return 0; }
            inodes += ((struct inet_diag_msg *)NLMSG_DATA(one))->idiag_inode;
            rows++;
        }
    }
}
