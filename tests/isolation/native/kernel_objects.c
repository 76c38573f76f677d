/* Objects of the kernel that have names or numbers of their own, and files that are one for the whole machine. */
#include "battery.h"
#include <dirent.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

static void renames_itself(void)
{
	ready();
	prctl(PR_SET_NAME, marker);
}

static void observe(void)
{
	struct perf_event_attr event = {
		.type = PERF_TYPE_SOFTWARE, .config = PERF_COUNT_SW_DUMMY, .size = sizeof event, .comm = 1,
		.exclude_kernel = 1,
	};
	void *rings[8];
	int count = 0;

	for each("pid", pid) {
		int fd = (int)syscall(SYS_perf_event_open, &event, atoi(pid), -1, -1, 0);

		tried("perf_event_open", pid, fd);
		if (fd >= 0 && count < 8 && (rings[count] = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) != MAP_FAILED)
			count++;
	}
	held();
	for (int i = 0; i < count; i++)
		search((char *)rings[i] + 4096, 4096);
}

static long bpf(int command, union bpf_attr *attributes)
{
	return syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

static int has_map(void)
{
	union bpf_attr shape = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 16, .max_entries = 1 };
	int map = (int)must("bpf", bpf(BPF_MAP_CREATE, &shape)), zero = 0;
	struct bpf_map_info info = { 0 };
	union bpf_attr value = { .map_fd = (unsigned)map, .key = (uintptr_t)&zero, .value = (uintptr_t)marker };
	union bpf_attr question = { .info = { .bpf_fd = (unsigned)map, .info_len = sizeof info, .info = (uintptr_t)&info } };

	must("bpf", bpf(BPF_MAP_UPDATE_ELEM, &value));
	must("bpf", bpf(BPF_OBJ_GET_INFO_BY_FD, &question));
	hint("map", "%u", info.id);
	return map;
}

static void numbered_map(void)
{
	has_map();
	ready();
}

static void read_map(int map)
{
	int zero = 0;
	char text[16];
	union bpf_attr value = { .map_fd = (unsigned)map, .key = (uintptr_t)&zero, .value = (uintptr_t)text };

	if (map >= 0 && bpf(BPF_MAP_LOOKUP_ELEM, &value) == 0)
		search(text, sizeof text);
}

static void map_by_number(void)
{
	union bpf_attr wanted = { .map_id = (unsigned)atoi(given("map", 0)) };
	int map = (int)bpf(BPF_MAP_GET_FD_BY_ID, &wanted);

	tried("BPF_MAP_GET_FD_BY_ID", given("map", 0), map);
	read_map(map);
}

/* The filesystem in which it has a name is in a mount namespace of the target's own. */
static void named_map(void)
{
	union bpf_attr pin = { .pathname = (uintptr_t)"/tmp/battery", .bpf_fd = (unsigned)has_map() };

	must("unshare", unshare(CLONE_NEWNS));
	mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	must("mount", mount("bpf", "/tmp", "bpf", 0, NULL));
	must("bpf", bpf(BPF_OBJ_PIN, &pin));
	ready();
}

static void map_by_name(void)
{
	const char *path;

	for (int i = 0; (path = way("/tmp/battery", i)); i++) {
		union bpf_attr wanted = { .pathname = (uintptr_t)path };
		int map = (int)bpf(BPF_OBJ_GET, &wanted);

		tried("BPF_OBJ_GET", path, map);
		read_map(map);
	}
}

static void faults(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)must("userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register area = { { (uintptr_t)page, 4096 }, UFFDIO_REGISTER_MODE_MISSING, 0 };
	unsigned char resident = 0;

	must("UFFDIO_API", ioctl(fd, UFFDIO_API, &api));
	must("UFFDIO_REGISTER", ioctl(fd, UFFDIO_REGISTER, &area));
	hint("fd", "%d", fd);
	hint("address", "%lx", (unsigned long)(uintptr_t)page);
	ready();
	mincore(page, 4096, &resident);
	close(fd); /* a missing page is then one of zeros */
	received(page, page[0] ? 8 : 0);
}

static void fill_page(void)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_copy copy = { strtoul(given("address", 0), NULL, 16), (uintptr_t)page, 4096, 0, 0 };

	memcpy(page, message, 8);
	for each("pid", pid) {
		int fd = (int)syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, atoi(pid), 0), atoi(given("fd", 0)), 0);

		tried("pidfd_getfd", pid, fd);
		if (fd >= 0)
			tried("UFFDIO_COPY", pid, ioctl(fd, UFFDIO_COPY, &copy));
	}
}

static void has_file(void)
{
	char *path = in_tmp("file");

	write_file(path, marker);
	hint("path", "%s", path);
	ready();
	unlink(path);
}

/* Files are opened and read by the kernel for the ring, where no filter of system calls sees it. */
static int ring_call(int ring, const struct io_uring_params *shape, char *area, const struct io_uring_sqe *call)
{
	struct io_uring_sqe *entries = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	unsigned *tail = (unsigned *)(area + shape->sq_off.tail), *done = (unsigned *)(area + shape->cq_off.head);
	struct io_uring_cqe *results = (void *)(area + shape->cq_off.cqes);
	int result;

	entries[0] = *call;
	((unsigned *)(area + shape->sq_off.array))[*tail & 3] = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return -1;
	result = results[*done & 7].res;
	__atomic_store_n(done, *done + 1, __ATOMIC_RELEASE);
	errno = -result;
	return result < 0 ? -1 : result;
}

static void read_by_ring(void)
{
	struct io_uring_params shape = { 0 };
	int ring = (int)must("io_uring_setup", syscall(SYS_io_uring_setup, 4, &shape));
	char *area = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING), text[64];
	const char *path;

	for (int i = 0; (path = way(given("path", 0), i)); i++) {
		struct io_uring_sqe call = { .opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)path };
		int fd = ring_call(ring, &shape, area, &call);

		tried("IORING_OP_OPENAT", path, fd);
		call = (struct io_uring_sqe){ .opcode = IORING_OP_READ, .fd = fd, .addr = (uintptr_t)text, .len = 64 };
		if (fd >= 0)
			search(text, ring_call(ring, &shape, area, &call));
	}
}

/* A format of programs that the kernel runs by an interpreter. */
static void runs_format(void)
{
	char *path = in_tmp("program");
	int status = 0;

	write_file(path, secret);
	chmod(path, 0755);
	hint("magic", "%s", secret);
	ready();
	pid_t child = fork();
	if (child == 0) {
		execl(path, path, NULL);
		_exit(99);
	}
	waitpid(child, &status, 0);
	if (status == 0)
		reached("its interpreter");
	unlink(path);
}

static void add_format(void)
{
	char rule[128], *interpreter = access("/bin/true", X_OK) ? "/bin/busybox" : "/bin/true";
	int fd;

	must("unshare", unshare(CLONE_NEWNS));
	mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	must("mount", mount("battery", "/tmp", "binfmt_misc", 0, NULL));
	fd = open("/tmp/register", O_WRONLY);
	tried("register", "binfmt_misc", write(fd, rule, (size_t)sprintf(rule, ":battery%s:M::%s::%s:", message, given("magic", 0), interpreter)));
	held();
	sprintf(rule, "/tmp/battery%s", message);
	write(open(rule, O_WRONLY), "-1", 2);
}

static void in_log(void)
{
	static char log[1 << 18];

	ready();
	search(log, 0);
	for (long got = klogctl(3, log, sizeof log), i = 0; i + 8 <= got; i++)
		if (!memcmp(log + i, "battery ", 8))
			received(log + i, 16);
}

static void write_log(void)
{
	static const char *const paths[] = { "/dev/kmsg", "/tmp/battery-kmsg", NULL };
	char text[64];

	tried("mknod", paths[1], mknod(paths[1], S_IFCHR | 0600, makedev(1, 11)));
	for (const char *const *path = paths; *path; path++) {
		int fd = open(*path, O_WRONLY);

		tried("open", *path, fd);
		if (fd >= 0)
			tried("write", *path, write(fd, text, (size_t)sprintf(text, "<7>battery %s", message)));
	}
	unlink(paths[1]);
}

static void named(void)
{
	must("prctl", prctl(PR_SET_NAME, marker));
	ready();
}

static void read_scheduler(void)
{
	must("unshare", unshare(CLONE_NEWNS));
	mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	must("mount", mount("battery", "/tmp", "debugfs", 0, NULL));
	search_file("/tmp/sched/debug");
}


/* Where the target is in the hierarchies, as the host sees it; the attempt may know. */
static void in_cgroup(void)
{
	char before[4096] = { 0 }, after[4096] = { 0 };

	read((int)must("open", open("/proc/self/cgroup", O_RDONLY)), before, 4095);
	ready();
	read(open("/proc/self/cgroup", O_RDONLY), after, 4095);
	if (strcmp(before, after))
		reached("another cgroup");
}

static void move_in(const char *top)
{
	const char *cgroup;

	for (int i = 0; (cgroup = given("cgroup", i)); i++)
		for each("pid", pid) {
			char path[4096];
			int fd;

			snprintf(path, sizeof path, "%s%s/battery-%s", top, cgroup, message);
			tried("mkdir", path, mkdir(path, 0755));
			strcat(path, "/cgroup.procs");
			fd = open(path, O_WRONLY);
			tried("open", path, fd);
			if (fd >= 0)
				tried("write", pid, write(fd, pid, strlen(pid)));
			close(fd);
		}
}

static void remove_in(const char *top)
{
	const char *cgroup;
	char path[4096];

	for (int i = 0; (cgroup = given("cgroup", i)); i++) {
		snprintf(path, sizeof path, "%s%s/battery-%s", top, cgroup, message);
		for (int n = 0; n < 1000 && rmdir(path) < 0 && errno == EBUSY; n++)
			usleep(1000);
	}
}

static void each_hierarchy(void (*act)(const char *))
{
	struct dirent *entry;
	char path[512];

	act("/sys/fs/cgroup");
	for (DIR *tops = opendir("/sys/fs/cgroup"); tops && (entry = readdir(tops));)
		if (*entry->d_name != '.' && entry->d_type != DT_REG && entry->d_type != DT_LNK) {
			snprintf(path, sizeof path, "/sys/fs/cgroup/%s", entry->d_name);
			act(path);
		}
}

static void move(void)
{
	each_hierarchy(move_in);
	held();
	each_hierarchy(remove_in);
}

static void mount_and_move(void)
{
	static const char *const kinds[][3] = {
		{ "cgroup2", NULL }, { "cgroup", "freezer" }, { "cgroup", "memory" }, { "cgroup", "pids" }, { "cgroup", "devices" },
	};

	must("unshare", unshare(CLONE_NEWNS));
	mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		long result = mount("battery", "/tmp", kinds[i][0], 0, kinds[i][1]);

		tried("mount", kinds[i][0], result);
		if (result < 0)
			continue;
		move_in("/tmp");
		move_in("/tmp/..");
	}
	held();
	each_hierarchy(remove_in);
}

const struct channel kernel_objects[] = {
	{ "perf_event_open", renames_itself, observe },
	{ "bpf-map-by-id", numbered_map, map_by_number },
	{ "bpf-map-pinned", named_map, map_by_name },
	{ "userfaultfd", faults, fill_page },
	{ "io_uring", has_file, read_by_ring },
	{ "binfmt_misc", runs_format, add_format },
	{ "kernel-log", in_log, write_log },
	{ "debugfs-sched", named, read_scheduler },
	{ "cgroupfs", in_cgroup, move },
	{ "cgroupfs-own-mount", in_cgroup, mount_and_move },
	{ 0 },
};
