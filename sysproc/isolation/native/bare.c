/*
 * The program without a C library: its first instruction, system calls, and the few functions of libc that it uses,
 * with libc's own prototypes, so that the other files read as any C program.
 *
 * Why: a static program of glibc takes 28 page faults, 0.4 ms and 44 kB before main(); this takes 4, and there is one
 * in each container, one beside it and one beside each exec'd process. Nothing here knows what it is used for.
 */
#include "native.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined __x86_64__
__asm__(".globl _start\n_start: xor %ebp, %ebp; mov %rsp, %rdi; and $-16, %rsp; call begin");

static long raw(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;

	__asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return number;
}
#elif defined __aarch64__
__asm__(".globl _start\n_start: mov x29, xzr; mov x0, sp; and sp, x0, #-16; bl begin");

static long raw(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
#else
#error "write _start and raw() for this architecture"
#endif

enum { KERNEL_SIGSET = 8, HEAP_BYTES = 4 << 20 };

static int error_number;

int *__errno_location(void)
{
	return &error_number;
}

/* What the kernel put there (exec in Documentation: argc, argv, NULL, environment). Called from _start. */
_Noreturn void begin(long *stack);
_Noreturn void begin(long *stack)
{
	_exit(main((int)stack[0], (char **)(stack + 1)));
}

static long checked(long result)
{
	if (result >= 0 || result < -4095)
		return result;
	errno = (int)-result;
	return -1;
}

#define CALL(name, ...) CALL_(name, __VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_(name, a, b, c, d, e, f, ...) \
	checked(raw(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f)))

/* Three times a variable last argument, which is a word or is not looked at by the kernel. */
static long last_argument(va_list rest)
{
	long value = va_arg(rest, long);

	va_end(rest);
	return value;
}

int open(const char *path, int flags, ...)
{
	return (int)CALL(openat, AT_FDCWD, path, flags, 0);
}

int fcntl(int fd, int operation, ...)
{
	va_list rest;

	va_start(rest, operation);
	return (int)CALL(fcntl, fd, operation, last_argument(rest));
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list rest;

	va_start(rest, request);
	return (int)CALL(ioctl, fd, request, last_argument(rest));
}

int prctl(int option, ...)
{
	va_list rest;

	va_start(rest, option);
	return (int)CALL(prctl, option, last_argument(rest));
}

long syscall(long number, ...)
{
	va_list rest;
	long a[5];

	va_start(rest, number);
	for (int i = 0; i < 5; i++)
		a[i] = va_arg(rest, long);
	va_end(rest);
	return checked(raw(number, a[0], a[1], a[2], a[3], a[4], 0));
}

/* Files */
int close(int fd) { return (int)CALL(close, fd); }
int close_range(unsigned first, unsigned last, int flags) { return (int)CALL(close_range, first, last, flags); }
ssize_t read(int fd, void *to, size_t count) { return CALL(read, fd, to, count); }
ssize_t write(int fd, const void *from, size_t count) { return CALL(write, fd, from, count); }
ssize_t pread(int fd, void *to, size_t count, off_t at) { return CALL(pread64, fd, to, count, at); }
ssize_t pwrite(int fd, const void *from, size_t count, off_t at) { return CALL(pwrite64, fd, from, count, at); }
int fstat(int fd, struct stat *to) { return (int)CALL(fstat, fd, to); }
int fstatfs(int fd, struct statfs *to) { return (int)CALL(fstatfs, fd, to); }
int access(const char *path, int mode) { return (int)CALL(faccessat, AT_FDCWD, path, mode); }
int fchown(int fd, uid_t uid, gid_t gid) { return (int)CALL(fchown, fd, uid, gid); }
int chdir(const char *path) { return (int)CALL(chdir, path); }
int dup2(int fd, int wanted) { return fd == wanted ? fd : (int)CALL(dup3, fd, wanted, 0); }
int pipe2(int fds[2], int flags) { return (int)CALL(pipe2, fds, flags); }
int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	struct timespec timeout = { timeout_ms / 1000, timeout_ms % 1000 * 1000000L };

	return (int)CALL(ppoll, fds, count, timeout_ms < 0 ? NULL : &timeout, NULL, 0);
}
ssize_t splice(int from, loff_t *from_at, int to, loff_t *to_at, size_t count, unsigned flags)
{
	return CALL(splice, from, from_at, to, to_at, count, flags);
}
int fallocate(int fd, int mode, off_t at, off_t count) { return (int)CALL(fallocate, fd, mode, at, count); }
int eventfd_read(int fd, eventfd_t *to) { return read(fd, to, sizeof *to) == sizeof *to ? 0 : -1; }
int eventfd_write(int fd, eventfd_t value) { return write(fd, &value, sizeof value) == sizeof value ? 0 : -1; }
int socketpair(int domain, int type, int protocol, int fds[2])
{
	return (int)CALL(socketpair, domain, type, protocol, fds);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) { return CALL(sendmsg, fd, message, flags); }
ssize_t recvmsg(int fd, struct msghdr *message, int flags) { return CALL(recvmsg, fd, message, flags); }

/* Memory. What is taken is never given back: it lasts as long as the process, or is untouched. */
void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	return (void *)CALL(mmap, at, bytes, protection, flags, fd, offset);
}
int munmap(void *at, size_t bytes) { return (int)CALL(munmap, at, bytes); }
void *calloc(size_t count, size_t bytes)
{
	static char heap[HEAP_BYTES];
	static size_t used;
	char *at = heap + used;

	if (bytes && count > (sizeof heap - used) / bytes)
		return NULL;
	used += (count * bytes + 15) & ~(size_t)15;
	return used <= sizeof heap ? at : NULL;
}

/* Processes */
_Noreturn void _exit(int code)
{
	for (;;)
		raw(SYS_exit_group, code, 0, 0, 0, 0, 0);
}
pid_t getpid(void) { return (pid_t)raw(SYS_getpid, 0, 0, 0, 0, 0, 0); }
pid_t setsid(void) { return (pid_t)checked(raw(SYS_setsid, 0, 0, 0, 0, 0, 0)); }
pid_t fork(void) { return (pid_t)CALL(clone, SIGCHLD); }
int setns(int fd, int kinds) { return (int)CALL(setns, fd, kinds); }
mode_t umask(mode_t mask) { return (mode_t)CALL(umask, mask); }
int execve(const char *path, char *const argv[], char *const environment[])
{
	return (int)CALL(execve, path, argv, environment);
}
pid_t waitpid(pid_t pid, int *status, int options) { return (pid_t)CALL(wait4, pid, status, options); }
int waitid(idtype_t kind, id_t id, siginfo_t *to, int options) { return (int)CALL(waitid, kind, id, to, options); }
int getrlimit(__rlimit_resource_t name, struct rlimit *to) { return (int)CALL(prlimit64, 0, name, 0, to); }
int setrlimit(__rlimit_resource_t name, const struct rlimit *to) { return (int)CALL(prlimit64, 0, name, to, 0); }
int setgroups(size_t count, const gid_t *groups) { return (int)CALL(setgroups, count, groups); }
int setresuid(uid_t real, uid_t effective, uid_t saved) { return (int)CALL(setresuid, real, effective, saved); }
int setresgid(gid_t real, gid_t effective, gid_t saved) { return (int)CALL(setresgid, real, effective, saved); }
int setfsuid(uid_t uid) { return (int)CALL(setfsuid, uid); }
int clock_gettime(clockid_t clock, struct timespec *to) { return (int)CALL(clock_gettime, clock, to); }

/* Signals: the kernel's set is the first word of libc's. Actions here are SIG_IGN and SIG_DFL only: all else is zero. */
int kill(pid_t pid, int number) { return (int)CALL(kill, pid, number); }
__sighandler_t signal(int number, __sighandler_t action)
{
	const uint64_t all[4] = { (uint64_t)(uintptr_t)action };

	return CALL(rt_sigaction, number, all, NULL, KERNEL_SIGSET) < 0 ? SIG_ERR : SIG_DFL;
}
int sigemptyset(sigset_t *set)
{
	memset(set, 0, sizeof *set);
	return 0;
}
int sigaddset(sigset_t *set, int number)
{
	*(uint64_t *)(void *)set |= UINT64_C(1) << (number - 1);
	return 0;
}
int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	return (int)CALL(rt_sigprocmask, how, set, old, KERNEL_SIGSET);
}
int sigtimedwait(const sigset_t *set, siginfo_t *to, const struct timespec *timeout)
{
	return (int)CALL(rt_sigtimedwait, set, to, timeout, KERNEL_SIGSET);
}
int sigwaitinfo(const sigset_t *set, siginfo_t *to) { return sigtimedwait(set, to, NULL); }

/* Strings */
void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		((char *)to)[i] = ((const char *)from)[i];
	return to;
}
void *memset(void *to, int byte, size_t count)
{
	for (size_t i = 0; i < count; i++)
		((char *)to)[i] = (char)byte;
	return to;
}
void *memchr(const void *in, int byte, size_t count)
{
	for (const char *at = in; count--; at++)
		if (*at == (char)byte)
			return (void *)(uintptr_t)at;
	return NULL;
}
int memcmp(const void *one, const void *other, size_t count)
{
	const unsigned char *a = one, *b = other;

	while (count && *a == *b)
		a++, b++, count--;
	return count ? *a - *b : 0;
}
size_t strnlen(const char *text, size_t most)
{
	const char *end = memchr(text, 0, most);

	return end ? (size_t)(end - text) : most;
}
size_t strlen(const char *text) { return strnlen(text, SIZE_MAX / 2); }
int strncmp(const char *one, const char *other, size_t most)
{
	while (most && *one && *one == *other)
		one++, other++, most--;
	return most ? (unsigned char)*one - (unsigned char)*other : 0;
}
int strcmp(const char *one, const char *other) { return strncmp(one, other, SIZE_MAX); }
size_t strcspn(const char *text, const char *ends)
{
	size_t length = 0;

	while (text[length] && !memchr(ends, text[length], strlen(ends)))
		length++;
	return length;
}
char *strchrnul(const char *text, int byte)
{
	while (*text && *text != (char)byte)
		text++;
	return (char *)(uintptr_t)text;
}
char *strchr(const char *text, int byte)
{
	char *at = strchrnul(text, byte);

	return *at ? at : NULL;
}
