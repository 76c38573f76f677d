/*
 * What goes through a volume besides contents: sockets, FIFOs, locks, leases, watches, handles, privileges of programs.
 *
 * How the ends use the volume is said in volume_files.c.
 */
#include "battery.h"
#include "volumes.h"
#include <linux/capability.h>
#include <signal.h>
#include <stddef.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#define FIFO VOLUME "/fifo"
#define OPENINGS 400
#define NOBODY 1000

static socklen_t named(struct sockaddr_un *address, const char *path)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(address->sun_path, sizeof address->sun_path, "%s", path);
	return sizeof *address;
}

/* What comes with it is an fd: what is in its file. */
static long take(int sock, char *text, size_t size)
{
	char control[64];
	struct iovec part = { text, size };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	long got = recvmsg(sock, &header, MSG_DONTWAIT);

	return got >= 0 && CMSG_FIRSTHDR(&header) ? pread(*(int *)CMSG_DATA(CMSG_FIRSTHDR(&header)), text, size, 0) : got;
}

static void listens(void)
{
	int sock = (int)must("socket", socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
	char *path = in_volume("socket"), text[64];
	struct sockaddr_un address;

	must("bind", bind(sock, (void *)&address, named(&address, path)));
	must("chmod", chmod(path, 0777));
	must("listen", listen(sock, 8));
	hint("path", "%s", path);
	ready();
	received(text, take(accept(sock, NULL, NULL), text, sizeof text));
	unlink(path);
}

static int connected(void)
{
	int sock = (int)must("socket", socket(AF_UNIX, SOCK_STREAM, 0));
	struct sockaddr_un address;

	tried("connect", "path", connect(sock, (void *)&address, named(&address, given("path", 0))));
	return sock;
}

static void speak(void)
{
	tried("send", "path", send(connected(), message, 8, MSG_NOSIGNAL | MSG_DONTWAIT));
	held();
}

static void give_fd(void)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { "x", 1 };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	int fd = memfd_create("battery", 0);

	must("write", write(fd, message, 8));
	*CMSG_FIRSTHDR(&header) = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&header)), &fd, sizeof fd);
	tried("sendmsg", "path", sendmsg(connected(), &header, MSG_NOSIGNAL | MSG_DONTWAIT));
	held();
}

static void reads_fifo(void)
{
	int fd = (int)must("open", open(FIFO, O_RDONLY | O_NONBLOCK));
	char text[16];

	ready();
	received(text, read(fd, text, sizeof text));
}

/* It can be opened if somebody reads it: that is seen, too. */
static void write_fifo(void)
{
	int fd = open(FIFO, O_WRONLY | O_NONBLOCK);

	tried("open", FIFO, fd);
	if (fd < 0)
		return;
	reached("somebody reads the FIFO");
	tried("write", FIFO, write(fd, message, 8));
	held();
}

static long flocked(int fd, int on)
{
	return flock(fd, on ? LOCK_EX | LOCK_NB : LOCK_UN);
}

static long range_locked(int fd, int on)
{
	struct flock range = { .l_type = (short)(!on ? F_UNLCK : writable(fd) ? F_WRLCK : F_RDLCK), .l_len = 1 };

	return fcntl(fd, F_OFD_SETLK, &range);
}

static void holds(long (*lock)(int, int))
{
	int fd = ours();

	must("lock", lock(fd, 1));
	ready();
	lock(fd, 0);
}

static void contend(long (*lock)(int, int))
{
	int fd = ours();
	long result = lock(fd, 1);

	tried("lock", OURS, result);
	if (result == 0 || errno != EAGAIN)
		return;
	held();
	if (lock(fd, 1) == 0)
		reached("a lock is held, and is not any more");
}

static void holds_flock(void)
{
	holds(flocked);
}

static void contend_flock(void)
{
	contend(flocked);
}

static void holds_range(void)
{
	holds(range_locked);
}

static void contend_range(void)
{
	contend(range_locked);
}

static volatile sig_atomic_t broken;

static void on_break(int number)
{
	(void)number;
	broken = 1;
}

static void has_lease(void)
{
	char *path = in_volume("leased");
	int fd = (int)must("open", open(path, O_RDWR | O_CREAT, 0644));

	signal(SIGIO, on_break);
	must("F_SETLEASE", fcntl(fd, F_SETLEASE, F_WRLCK));
	hint("path", "%s", path);
	ready();
	if (broken)
		reached("the lease is broken");
	unlink(path);
}

static void break_lease(void)
{
	tried("open", "path", open(given("path", 0), O_RDONLY | O_NONBLOCK));
}

static void watches(void)
{
	int queue = (int)must("inotify_init", inotify_init1(IN_NONBLOCK)), opened = 0;
	static char buffer[1 << 16] __attribute__((aligned(8)));
	long got;

	must("inotify_add_watch", inotify_add_watch(queue, OURS, IN_OPEN | IN_CLOSE));
	ready();
	while ((got = read(queue, buffer, sizeof buffer)) > 0)
		for (long at = 0; at < got; at += (long)sizeof(struct inotify_event) + ((struct inotify_event *)(buffer + at))->len)
			opened += !!(((struct inotify_event *)(buffer + at))->mask & IN_OPEN);
	if (opened)
		reached("%d openings", opened);
}

static void watches_by_fanotify(void)
{
	int queue = (int)must("fanotify_init", fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_NONBLOCK, 0));
	static char buffer[1 << 16];
	long got;

	must("fanotify_mark", fanotify_mark(queue, FAN_MARK_ADD, FAN_OPEN | FAN_CLOSE, AT_FDCWD, OURS));
	ready();
	if ((got = read(queue, buffer, sizeof buffer)) > 0)
		reached("%ld bytes of events", got);
}

static void open_often(void)
{
	for (int i = 0; i < OPENINGS; i++)
		close(ours());
}

static void has_handle(void)
{
	struct { struct file_handle handle; unsigned char bytes[128]; } found = { .handle = { .handle_bytes = 128 } };
	char text[300], *path = in_volume("handle");
	int mount;

	write_file(path, marker);
	must("chmod", chmod(path, 0600));
	must("name_to_handle_at", name_to_handle_at(AT_FDCWD, path, &found.handle, &mount, 0));
	for (unsigned i = 0; i < found.handle.handle_bytes; i++)
		sprintf(text + 2 * i, "%02x", found.handle.f_handle[i]);
	hint("handle", "%s", text);
	hint("type", "%d", found.handle.handle_type);
	ready();
	unlink(path);
}

static void open_handle(void)
{
	struct { struct file_handle handle; unsigned char bytes[128]; } wanted = { 0 };
	const char *text = given("handle", 0);
	char buffer[64];
	int fd;

	wanted.handle.handle_bytes = (unsigned)strlen(text) / 2;
	wanted.handle.handle_type = atoi(given("type", 0));
	for (unsigned i = 0; i < wanted.handle.handle_bytes; i++)
		sscanf(text + 2 * i, "%2hhx", &wanted.handle.f_handle[i]);
	fd = open_by_handle_at(open(access(VOLUME, F_OK) ? "/tmp" : VOLUME, O_RDONLY), &wanted.handle, O_RDONLY);
	tried("open_by_handle_at", VOLUME, fd);
	if (fd >= 0)
		search(buffer, read(fd, buffer, sizeof buffer));
}

/* A copy of this program for all to run. */
static char *program(void)
{
	static char buffer[1 << 16];
	char *path = in_volume("program");
	int from = (int)must("open", open("/proc/self/exe", O_RDONLY)), to = (int)must("open", open(path, O_WRONLY | O_CREAT, 0755));
	long got;

	while ((got = read(from, buffer, sizeof buffer)) > 0)
		must("write", write(to, buffer, (size_t)got));
	close(to);
	hint("path", "%s", path);
	return path;
}

static void has_setuid_program(void)
{
	char *path = program();

	must("chmod", chmod(path, 04755));
	ready();
	unlink(path);
}

static void has_capable_program(void)
{
	struct vfs_cap_data all = { .magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE };
	char *path = program();

	all.data[0].permitted = 1u << CAP_NET_ADMIN;
	must("setxattr", setxattr(path, "security.capability", &all, sizeof all, 0));
	ready();
	unlink(path);
}

static int capable(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	return syscall(SYS_capget, &header, data) == 0 && data[0].effective >> CAP_NET_ADMIN & 1;
}

/* Run as nobody in particular: it says whether it has got more. */
static void run_program(const char *channel)
{
	pid_t pid;

	if (given("again", 0)) {
		if (geteuid() != NOBODY || capable())
			reached("uid %d, capable: %d", (int)geteuid(), capable());
		return;
	}
	fflush(stdout);
	if ((pid = fork()) == 0) {
		must("setresgid", setresgid(NOBODY, NOBODY, NOBODY));
		must("setresuid", setresuid(NOBODY, NOBODY, NOBODY));
		execl(given("path", 0), "program", "attempt", channel, message, "again=1", NULL);
		tried("execl", "path", -1);
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void run_setuid_program(void)
{
	run_program("volume-setuid");
}

static void run_capable_program(void)
{
	run_program("volume-capabilities");
}

const struct channel volume_objects[] = {
	{ "volume-socket", listens, speak },
	{ "volume-socket-scm_rights", listens, give_fd },
	{ "volume-fifo", reads_fifo, write_fifo },
	{ "volume-flock", holds_flock, contend_flock },
	{ "volume-ofd-lock", holds_range, contend_range },
	{ "volume-lease", has_lease, break_lease },
	{ "volume-inotify", watches, open_often },
	{ "volume-fanotify", watches_by_fanotify, open_often },
	{ "volume-open_by_handle_at", has_handle, open_handle },
	{ "volume-setuid", has_setuid_program, run_setuid_program },
	{ "volume-capabilities", has_capable_program, run_capable_program },
	{ 0 },
};
