/* System calls that act on another process, or read from it. */
#include "battery.h"
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

static char area[64];

static void in_memory(void)
{
	snprintf(area, sizeof area, "%s", secret);
	hint("address", "%lx", (unsigned long)(uintptr_t)area);
	ready();
	if (strcmp(area, secret))
		received(area, 8);
}

static void *address(void)
{
	return (void *)(uintptr_t)strtoul(given("address", 0), NULL, 16);
}

static void traced(int request)
{
	for each("pid", pid) {
		pid_t number = atoi(pid);
		long words[1], result = ptrace(request, number, NULL, NULL);

		tried("ptrace", pid, result);
		if (result < 0)
			continue;
		if (request == PTRACE_SEIZE)
			ptrace(PTRACE_INTERRUPT, number, NULL, NULL);
		waitpid(number, NULL, __WALL);
		words[0] = ptrace(PTRACE_PEEKDATA, number, address(), NULL);
		learned(words, 8);
		ptrace(PTRACE_DETACH, number, NULL, NULL);
	}
}

static void attach(void)
{
	traced(PTRACE_ATTACH);
}

static void seize(void)
{
	traced(PTRACE_SEIZE);
}

static void vm_read(void)
{
	char buffer[8];
	struct iovec here = { buffer, 8 }, there = { address(), 8 };

	for each("pid", pid) {
		long result = process_vm_readv(atoi(pid), &here, 1, &there, 1, 0);

		tried("process_vm_readv", pid, result);
		learned(buffer, result);
	}
}

static void vm_write(void)
{
	struct iovec here = { message, 8 }, there = { address(), 8 };

	for each("pid", pid)
		tried("process_vm_writev", pid, process_vm_writev(atoi(pid), &here, 1, &there, 1, 0));
}

static void open_fd(void)
{
	int fd = (int)must("memfd_create", memfd_create("battery", 0));

	must("write", write(fd, secret, 8));
	hint("fd", "%d", fd);
	ready();
}

static void take_fd(void)
{
	char buffer[8];

	for each("pid", pid) {
		int pidfd = (int)syscall(SYS_pidfd_open, atoi(pid), 0), fd;

		fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(given("fd", 0)), 0);
		tried("pidfd_getfd", pid, fd);
		if (fd >= 0)
			learned(buffer, pread(fd, buffer, 8, 0));
	}
}

/* Which of its fds are the same open file: each pair is one bit. */
static void paired_fds(void)
{
	for (int bit = 0; bit < 32; bit++) {
		int fd = open("/", O_RDONLY), other = number(secret) >> bit & 1 ? dup(fd) : open("/", O_RDONLY);

		dup2(fd, 100 + 2 * bit);
		dup2(other, 101 + 2 * bit);
		close(fd);
		close(other);
	}
	ready();
}

static void compare(void)
{
	char text[16];

	for each("pid", pid) {
		uint32_t bits = 0;
		long result = 0;

		for (int bit = 0; bit < 32 && result >= 0; bit++) {
			result = syscall(SYS_kcmp, atoi(pid), atoi(pid), 0, 100 + 2 * bit, 101 + 2 * bit);
			bits |= (uint32_t)(result == 0) << bit;
		}
		tried("kcmp", pid, result);
		learned(text, sprintf(text, "%08x", bits));
	}
}

static void futex_list(void)
{
	must("set_robust_list", syscall(SYS_set_robust_list, (uintptr_t)number(secret), 24));
	ready();
	syscall(SYS_set_robust_list, NULL, 24);
}

static void read_futex_list(void)
{
	char text[32];

	for each("pid", pid) {
		unsigned long head = 0, size = 0;
		long result = syscall(SYS_get_robust_list, atoi(pid), &head, &size);

		tried("get_robust_list", pid, result);
		learned(text, sprintf(text, "%08lx", head));
	}
}

static void has_limit(void)
{
	struct rlimit limit = { number(secret), RLIM_INFINITY };
	char text[16];

	must("setrlimit", setrlimit(RLIMIT_RSS, &limit));
	ready();
	getrlimit(RLIMIT_RSS, &limit);
	if (limit.rlim_cur != number(secret))
		received(text, sprintf(text, "%08lx", (unsigned long)limit.rlim_cur));
}

static void read_limit(void)
{
	struct rlimit limit;
	char text[32];

	for each("pid", pid) {
		long result = prlimit(atoi(pid), RLIMIT_RSS, NULL, &limit);

		tried("prlimit", pid, result);
		if (result == 0)
			learned(text, sprintf(text, "%08lx", (unsigned long)limit.rlim_cur));
	}
}

static void write_limit(void)
{
	struct rlimit limit = { number(message), RLIM_INFINITY };

	for each("pid", pid)
		tried("prlimit", pid, prlimit(atoi(pid), RLIMIT_RSS, &limit, NULL));
}

struct scheduling {
	int nice, policy, io;
	cpu_set_t cpus;
};

static struct scheduling scheduling(void)
{
	struct scheduling now = { .nice = getpriority(PRIO_PROCESS, 0), .policy = sched_getscheduler(0) };

	now.io = (int)syscall(SYS_ioprio_get, 1, 0);
	sched_getaffinity(0, sizeof now.cpus, &now.cpus);
	return now;
}

static void scheduled(void)
{
	struct scheduling before = scheduling(), after;

	hint("processors", "%d", CPU_COUNT(&before.cpus));
	ready();
	after = scheduling();
	if (memcmp(&before, &after, sizeof before))
		reached("nice %d, policy %d, ioprio %d", after.nice, after.policy, after.io);
}

static void renice(void)
{
	for each("pid", pid)
		tried("setpriority", pid, setpriority(PRIO_PROCESS, atoi(pid), 7));
}


static void renice_user(void)
{
	tried("setpriority", "uid", setpriority(PRIO_USER, 0, 7));
}

static void reschedule(void)
{
	struct sched_param none = { 0 };

	for each("pid", pid)
		tried("sched_setscheduler", pid, sched_setscheduler(atoi(pid), SCHED_BATCH, &none));
}

static void pin(void)
{
	cpu_set_t first;

	CPU_ZERO(&first);
	CPU_SET(0, &first);
	if (atoi(given("processors", 0)) < 2) {
		errno = ENODEV;
		must("second-processor", -1);
	}
	for each("pid", pid)
		tried("sched_setaffinity", pid, sched_setaffinity(atoi(pid), sizeof first, &first));
}

static void io_priority(void)
{
	for each("pid", pid)
		tried("ioprio_set", pid, syscall(SYS_ioprio_set, 1, atoi(pid), 2 << 13 | 6));
}

static void io_priority_user(void)
{
	tried("ioprio_set", "uid", syscall(SYS_ioprio_set, 3, 0, 2 << 13 | 6));
}


const struct channel processes[] = {
	{ "ptrace-attach", in_memory, attach },
	{ "ptrace-seize", in_memory, seize },
	{ "process_vm_readv", in_memory, vm_read },
	{ "process_vm_writev", in_memory, vm_write },
	{ "pidfd_getfd", open_fd, take_fd },
	{ "kcmp", paired_fds, compare },
	{ "get_robust_list", futex_list, read_futex_list },
	{ "prlimit-read", has_limit, read_limit },
	{ "prlimit-write", has_limit, write_limit },
	{ "setpriority", scheduled, renice },
	{ "setpriority-user", scheduled, renice_user },
	{ "sched_setscheduler", scheduled, reschedule },
	{ "sched_setaffinity", scheduled, pin },
	{ "ioprio_set", scheduled, io_priority },
	{ "ioprio_set-user", scheduled, io_priority_user },
	{ 0 },
};
