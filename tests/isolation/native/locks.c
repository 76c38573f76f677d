/* Locks, leases and watches: on files, on device nodes, on links of /proc, on files without a name. */
#include "battery.h"
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#define FLOCK 0
#define RANGE 1
#define MOST 32

static const char *const nodes[] = {
	"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", NULL,
};
static const char *const links[] = {
	"/proc/self/ns/user", "/proc/self/ns/pid", "/proc/self/ns/mnt", "/proc/self/ns/net", "/proc/self/ns/ipc",
	"/proc/self/ns/uts", "/proc/self/ns/cgroup", "/proc/self/ns/time", "/proc/self/ns/time_for_children", NULL,
};
static const char *const kernel_files[] = {
	"/proc", "/proc/version", "/proc/uptime", "/proc/sys/kernel/ostype", "/proc/sys/kernel/hostname", "/sys",
	"/sys/devices/system/cpu", "/sys/devices/system/cpu/online", "/sys/class/net/lo/mtu", "/sys/fs/cgroup",
	"/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/tasks", "/dev", "/dev/pts",
	"/dev/mqueue", "/run", NULL,
};

static int open_all(const char *const *paths, int *fds)
{
	int count = 0;

	for (; *paths; paths++) {
		int fd = open(*paths, O_RDWR | O_NOCTTY | O_NONBLOCK);

		if (fd < 0)
			fd = open(*paths, O_RDONLY | O_NOCTTY | O_NONBLOCK);
		if (fd >= 0)
			fds[count++] = fd;
	}
	return count;
}

static int without_name(int *fds)
{
	sigset_t none;

	sigemptyset(&none);
	fds[0] = eventfd(0, 0);
	fds[1] = epoll_create1(0);
	fds[2] = inotify_init1(0);
	fds[3] = signalfd(-1, &none, 0);
	fds[4] = timerfd_create(CLOCK_MONOTONIC, 0);
	return 5;
}

static int lock(int fd, int kind)
{
	struct flock range = { .l_type = F_WRLCK, .l_len = 1 };

	return kind == FLOCK ? flock(fd, LOCK_EX | LOCK_NB) : fcntl(fd, F_OFD_SETLK, &range);
}

static void unlock(int fd, int kind)
{
	struct flock range = { .l_type = F_UNLCK, .l_len = 1 };

	if (kind == FLOCK)
		flock(fd, LOCK_UN);
	else
		fcntl(fd, F_OFD_SETLK, &range);
}

static void holds(int *fds, int count, int kind)
{
	for (int i = 0; i < count; i++)
		lock(fds[i], kind);
	ready();
	for (int i = 0; i < count; i++)
		unlock(fds[i], kind);
}

/* Taken while the target has it, and free when the target has let go: then the lock is one and the same. */
static void contend(int *fds, int count, int kind)
{
	int busy[MOST];

	for (int i = 0; i < count; i++) {
		int result = lock(fds[i], kind);

		tried("lock", "fd", result);
		busy[i] = result < 0 && errno == EAGAIN;
		if (result == 0)
			unlock(fds[i], kind);
	}
	held();
	for (int i = 0; i < count; i++)
		if (busy[i] && lock(fds[i], kind) == 0)
			reached("a lock of the target, number %d", i);
}

#define LOCKS(name, kind, opening) \
	static void holds_##name(void) { int fds[MOST]; holds(fds, opening, kind); } \
	static void contend_##name(void) { int fds[MOST]; contend(fds, opening, kind); }
LOCKS(flock_nodes, FLOCK, open_all(nodes, fds))
LOCKS(range_nodes, RANGE, open_all(nodes, fds))
LOCKS(flock_links, FLOCK, open_all(links, fds))
LOCKS(flock_kernel, FLOCK, open_all(kernel_files, fds))
LOCKS(flock_nameless, FLOCK, without_name(fds))
LOCKS(range_nameless, RANGE, without_name(fds))

static void holds_file(int kind)
{
	char *path = in_tmp("locked");
	int fd = (int)must("open", open(path, O_CREAT | O_RDWR, 0666));

	hint("path", "%s", path);
	holds(&fd, 1, kind);
	unlink(path);
}

static void contend_file(int kind)
{
	int fds[MOST], count = 0;
	const char *path;

	for (int i = 0; count < MOST && (path = way(given("path", 0), i)); i++) {
		int fd = open(path, O_RDWR);

		tried("open", path, fd);
		if (fd >= 0)
			fds[count++] = fd;
	}
	contend(fds, count, kind);
}

static void holds_flock(void)
{
	holds_file(FLOCK);
}

static void contend_flock(void)
{
	contend_file(FLOCK);
}

static void holds_range(void)
{
	holds_file(RANGE);
}

static void contend_range(void)
{
	contend_file(RANGE);
}

static volatile sig_atomic_t broken;

static void on_break(int number)
{
	(void)number;
	broken = 1;
}

static void has_lease(void)
{
	char *path = in_tmp("leased");
	int fd;

	write_file(path, "");
	fd = (int)must("open", open(path, O_RDONLY));
	signal(SIGIO, on_break);
	must("F_SETLEASE", fcntl(fd, F_SETLEASE, F_RDLCK));
	hint("path", "%s", path);
	ready();
	if (broken)
		reached("the lease");
	unlink(path);
}

static void break_lease(void)
{
	const char *path;

	for (int i = 0; (path = way(given("path", 0), i)); i++)
		tried("open", path, open(path, O_WRONLY | O_NONBLOCK));
}

#define OPENINGS 400

/* So many openings come from nobody else meanwhile. */
static void count_events(int queue)
{
	static char buffer[1 << 16] __attribute__((aligned(8)));
	static int opened[1 << 12];
	long got;

	while ((got = read(queue, buffer, sizeof buffer)) > 0)
		for (long at = 0; at < got;) {
			struct inotify_event *event = (void *)(buffer + at);

			opened[event->wd & 0xfff] += !!(event->mask & IN_OPEN);
			at += (long)sizeof *event + event->len;
		}
	for (int i = 0; i < 1 << 12; i++)
		if (opened[i] >= OPENINGS)
			reached("%d openings of number %d", opened[i], i);
}

static void watches(const char *const *paths)
{
	int queue = (int)must("inotify_init", inotify_init1(IN_NONBLOCK)), count = 0;

	for (; *paths; paths++) {
		open(*paths, O_RDONLY | O_NONBLOCK | O_NOCTTY); /* the kernel may forget inodes that nobody has open */
		count += inotify_add_watch(queue, *paths, IN_OPEN | IN_CLOSE) >= 0;
	}
	errno = EACCES; /* if not one could be watched */
	must("inotify_add_watch", count - 1);
	ready();
	count_events(queue);
}

static void open_often(const char *const *paths)
{
	for (; *paths; paths++)
		for (int i = 0; i < OPENINGS; i++) {
			int fd = open(*paths, O_RDONLY | O_NONBLOCK | O_NOCTTY);

			if (fd < 0)
				break;
			close(fd);
		}
}

#define WATCHES(name) \
	static void watches_##name(void) { watches(name); } \
	static void open_##name(void) { open_often(name); }
WATCHES(nodes)
WATCHES(links)
WATCHES(kernel_files)

static void watches_file(void)
{
	char *path = in_tmp("watched");
	const char *paths[] = { path, NULL };

	write_file(path, "");
	hint("path", "%s", path);
	watches(paths);
	unlink(path);
}

static void open_file(void)
{
	const char *path;

	for (int i = 0; (path = way(given("path", 0), i)); i++) {
		const char *paths[] = { path, NULL };

		tried("open", path, access(path, R_OK));
		open_often(paths);
	}
}

static void watches_by_fanotify(void)
{
	int queue = (int)must("fanotify_init", fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_NONBLOCK, 0)), events = 0;
	static char buffer[1 << 16];
	long got;

	must("fanotify_mark", fanotify_mark(queue, FAN_MARK_ADD, FAN_OPEN | FAN_CLOSE, AT_FDCWD, "/dev/full"));
	ready();
	while ((got = read(queue, buffer, sizeof buffer)) > 0)
		events += (int)(got / (long)sizeof(struct fanotify_event_metadata));
	if (events)
		reached("%d events", events);
}

static void open_full(void)
{
	for (int i = 0; i < 100; i++)
		close(open("/dev/full", O_RDONLY));
}

const struct channel locks[] = {
	{ "flock-file", holds_flock, contend_flock },
	{ "fcntl-lock-file", holds_range, contend_range },
	{ "flock-device-nodes", holds_flock_nodes, contend_flock_nodes },
	{ "fcntl-lock-device-nodes", holds_range_nodes, contend_range_nodes },
	{ "flock-namespace-links", holds_flock_links, contend_flock_links },
	{ "flock-kernel-files", holds_flock_kernel, contend_flock_kernel },
	{ "flock-anonymous-inode", holds_flock_nameless, contend_flock_nameless },
	{ "fcntl-lock-anonymous-inode", holds_range_nameless, contend_range_nameless },
	{ "lease", has_lease, break_lease },
	{ "inotify-file", watches_file, open_file },
	{ "inotify-device-nodes", watches_nodes, open_nodes },
	{ "inotify-namespace-links", watches_links, open_links },
	{ "inotify-kernel-files", watches_kernel_files, open_kernel_files },
	{ "fanotify-device-nodes", watches_by_fanotify, open_full },
	{ 0 },
};
