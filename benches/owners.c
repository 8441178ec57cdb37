// The floor for owners: the kernel's task_file iterator, its program assembled by hand.
// The offsets are of the kernel's BTF, read by libbpf (libbpf-dev), which is used for
// nothing else. Prints how many descriptors of sockets there are on this host.
#define _GNU_SOURCE
#include <bpf/btf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct btf *types;

static void die(const char *what) {
    perror(what);
    exit(1);
}
static int bpf(int command, union bpf_attr *with) {
    int fd = syscall(SYS_bpf, command, with, sizeof *with);
    if (fd < 0) die("bpf");
    return fd;
}
// Looks into anonymous structs too.
static int within(int id, const char *member, int base) {
    const struct btf_type *type = btf__type_by_id(types, id);
    const struct btf_member *all = btf_members(type);
    for (int i = 0; i < btf_vlen(type); i++) {
        const char *name = btf__name_by_offset(types, all[i].name_off);
        const struct btf_type *of = btf__type_by_id(types, all[i].type);
        int at = base + btf_member_bit_offset(type, i) / 8, found;
        if (!strcmp(name, member)) return at;
        if (!*name && (btf_is_struct(of) || btf_is_union(of)) && (found = within(all[i].type, member, at)) >= 0)
            return found;
    }
    return -1;
}
static int offset(const char *structure, const char *member) {
    int id = btf__find_by_name_kind(types, structure, BTF_KIND_STRUCT);
    int at = id < 0 ? -1 : within(id, member, 0);
    if (at < 0) errno = ENOENT, die(member);
    return at;
}
#define INSN(op, dst, src, offs, value) \
    ((struct bpf_insn){.code = op, .dst_reg = dst, .src_reg = src, .off = offs, .imm = value})
#define LOAD(size, dst, src, offs) INSN(BPF_LDX | BPF_MEM | size, dst, src, offs, 0)
#define STORE(size, src, offs) INSN(BPF_STX | BPF_MEM | size, 10, src, offs, 0)
#define COPY(dst, src) INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define SET(dst, value) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value)
#define CALL(helper) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, helper)
#define LEAVE_IF_0(reg) INSN(BPF_JMP | BPF_JEQ | BPF_K, reg, 0, 0, 0)
#define RECORD 24 // tgid, tid, fd, nothing, inode

int main(void) {
    if (!(types = btf__load_vmlinux_btf())) die("/sys/kernel/btf/vmlinux");
    const char *context = "bpf_iter__task_file";
    struct bpf_insn program[] = {
        COPY(6, 1),
        LOAD(BPF_DW, 7, 6, offset(context, "task")),
        LOAD(BPF_DW, 8, 6, offset(context, "file")),
        LEAVE_IF_0(7),
        LEAVE_IF_0(8),
        COPY(1, 8),
        CALL(BPF_FUNC_sock_from_file),
        LEAVE_IF_0(0),
        LOAD(BPF_W, 1, 7, offset("task_struct", "tgid")),
        STORE(BPF_W, 1, -24),
        LOAD(BPF_W, 1, 7, offset("task_struct", "pid")),
        STORE(BPF_W, 1, -20),
        LOAD(BPF_W, 1, 6, offset(context, "fd")),
        STORE(BPF_W, 1, -16),
        SET(1, 0),
        STORE(BPF_W, 1, -12),
        LOAD(BPF_DW, 1, 8, offset("file", "f_inode")),
        LOAD(BPF_DW, 1, 1, offset("inode", "i_ino")),
        STORE(BPF_DW, 1, -8),
        LOAD(BPF_DW, 1, 6, offset(context, "meta")),
        LOAD(BPF_DW, 1, 1, offset("bpf_iter_meta", "seq")),
        COPY(2, 10),
        INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -RECORD),
        SET(3, RECORD),
        CALL(BPF_FUNC_seq_write),
        SET(0, 0),
        INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
    };
    int count = sizeof program / sizeof *program;
    for (int i = 0; i < count; i++)
        if (program[i].code == (BPF_JMP | BPF_JEQ | BPF_K)) program[i].off = count - 2 - i - 1;
    union bpf_attr load = {
        .prog_type = BPF_PROG_TYPE_TRACING,
        .expected_attach_type = BPF_TRACE_ITER,
        .attach_btf_id = btf__find_by_name_kind(types, "bpf_iter_task_file", BTF_KIND_FUNC),
        .insns = (__u64)program,
        .insn_cnt = count,
        .license = (__u64) "Dual MIT/GPL",
    };
    union bpf_attr link = {.link_create = {.prog_fd = bpf(BPF_PROG_LOAD, &load), .attach_type = BPF_TRACE_ITER}};
    union bpf_attr iter = {.iter_create = {.link_fd = bpf(BPF_LINK_CREATE, &link)}};
    int descriptors = bpf(BPF_ITER_CREATE, &iter);
    static char buffer[1 << 18];
    long got, bytes = 0;
    while ((got = read(descriptors, buffer, sizeof buffer)) > 0 || (got < 0 && errno == EAGAIN))
        if (got > 0) bytes += got;
    if (got < 0) die("read");
    printf("%ld\n", bytes / RECORD);
}
