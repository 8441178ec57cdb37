// The floor of finding the owners of all sockets by the kernel's own iterator of
// descriptors (bpf_iter of task_file), its program assembled by hand: thread, process,
// descriptor and inode of each socket are read, and only counted. Offsets come from the
// running kernel's BTF. Needs root. Usage: owners; built with -lbpf, for its reader of BTF.
#define _GNU_SOURCE
#include <bpf/btf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INSN(c, d, s, o, i) ((struct bpf_insn){.code = c, .dst_reg = d, .src_reg = s, .off = o, .imm = i})
#define LOAD(size, d, s, o) INSN(BPF_LDX | BPF_MEM | size, d, s, o, 0)
#define STORE(size, d, s, o) INSN(BPF_STX | BPF_MEM | size, d, s, o, 0)
#define MOVE(d, s) INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define SET(d, i) INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define ADD(d, i) INSN(BPF_ALU64 | BPF_ADD | BPF_K, d, 0, 0, i)
#define CALL(function) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, function)
#define UNLESS(d) INSN(BPF_JMP | BPF_JEQ | BPF_K, d, 0, 0, 0) // to the end; where that is, is set later
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

struct row {
    int process, thread, fd, unused;
    unsigned long inode;
};
static struct btf *types;

static void die(const char *what) {
    perror(what);
    exit(1);
}
static long bpf(int command, union bpf_attr *with) { return syscall(SYS_bpf, command, with, sizeof *with); }
// Where a member lies in a structure, those of its anonymous members included; or -1.
static int find(int id, const char *name, int base) {
    const struct btf_type *type = btf__type_by_id(types, id);
    const struct btf_member *members = btf_members(type);
    for (int i = 0; i < btf_vlen(type); i++) {
        const char *its = btf__name_by_offset(types, members[i].name_off);
        int at = base + btf_member_bit_offset(type, i) / 8;
        if (!strcmp(its, name)) return at;
        const struct btf_type *inner = btf__type_by_id(types, members[i].type);
        if (*its || !(btf_is_struct(inner) || btf_is_union(inner))) continue;
        int found = find(members[i].type, name, at);
        if (found >= 0) return found;
    }
    return -1;
}
static int offset(const char *structure, const char *name) {
    int id = btf__find_by_name_kind(types, structure, BTF_KIND_STRUCT);
    int at = id < 0 ? -1 : find(id, name, 0);
    if (at < 0) {
        fprintf(stderr, "this kernel has no %s.%s\n", structure, name);
        exit(1);
    }
    return at;
}
static int load(void) {
    static char log[1 << 20];
    struct bpf_insn program[] = {
        MOVE(6, 1),
        LOAD(BPF_DW, 7, 6, offset("bpf_iter__task_file", "task")),
        LOAD(BPF_DW, 8, 6, offset("bpf_iter__task_file", "file")),
        UNLESS(7),
        UNLESS(8),
        MOVE(1, 8),
        CALL(BPF_FUNC_sock_from_file),
        UNLESS(0),
        LOAD(BPF_W, 1, 7, offset("task_struct", "tgid")),
        STORE(BPF_W, 10, 1, -24),
        LOAD(BPF_W, 1, 7, offset("task_struct", "pid")),
        STORE(BPF_W, 10, 1, -20),
        LOAD(BPF_W, 1, 6, offset("bpf_iter__task_file", "fd")),
        STORE(BPF_W, 10, 1, -16),
        SET(1, 0),
        STORE(BPF_W, 10, 1, -12),
        LOAD(BPF_DW, 1, 8, offset("file", "f_inode")),
        LOAD(BPF_DW, 1, 1, offset("inode", "i_ino")),
        STORE(BPF_DW, 10, 1, -8),
        LOAD(BPF_DW, 1, 6, offset("bpf_iter__task_file", "meta")),
        LOAD(BPF_DW, 1, 1, offset("bpf_iter_meta", "seq")),
        MOVE(2, 10),
        ADD(2, -24),
        SET(3, sizeof(struct row)),
        CALL(BPF_FUNC_seq_write),
        SET(0, 0),
        EXIT,
    };
    int length = sizeof program / sizeof *program, end = length - 2;
    for (int i = 0; i < length; i++)
        if (program[i].code == (BPF_JMP | BPF_JEQ | BPF_K)) program[i].off = end - i - 1;
    union bpf_attr with = {
        .prog_type = BPF_PROG_TYPE_TRACING,
        .expected_attach_type = BPF_TRACE_ITER,
        .attach_btf_id = btf__find_by_name_kind(types, "bpf_iter_task_file", BTF_KIND_FUNC),
        .insns = (unsigned long)program,
        .insn_cnt = length,
        .license = (unsigned long)"GPL",
        .log_buf = (unsigned long)log,
        .log_size = sizeof log,
        .log_level = 1,
    };
    int fd = bpf(BPF_PROG_LOAD, &with);
    if (fd < 0) {
        fprintf(stderr, "the kernel refused the program: %s\n%s\n", strerror(errno), log);
        exit(1);
    }
    return fd;
}
int main(void) {
    static char buffer[1 << 18];
    if (!(types = btf__load_vmlinux_btf())) die("BTF");
    union bpf_attr link = {.link_create = {.prog_fd = load(), .attach_type = BPF_TRACE_ITER}};
    int linked = bpf(BPF_LINK_CREATE, &link);
    if (linked < 0) die("link");
    union bpf_attr create = {.iter_create = {.link_fd = linked}};
    int rows = bpf(BPF_ITER_CREATE, &create);
    if (rows < 0) die("iterator");
    long got, bytes = 0;
    // EAGAIN: it has walked for a while and found nothing to give yet.
    while ((got = read(rows, buffer, sizeof buffer)) > 0 || (got < 0 && errno == EAGAIN))
        if (got > 0) bytes += got;
    if (got < 0) die("read");
    printf("%ld sockets\n", bytes / (long)sizeof(struct row));
    return 0;
}
