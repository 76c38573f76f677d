/*
 * Where the supervisor's children are born: whoever is in the container's PID namespace is seen there at once, and
 * everybody may read which mounts, sockets and cgroups it has (/proc/PID/mountinfo, net, cgroup). So the supervisor,
 * which nobody inside sees, goes first, and comes back when the child is born:
 *
 *     the host's mounts and network ──step_inside──▶ the container's, children in its PID namespace ──clone3, fork──▶
 *                   ◀──────────step_outside────────────────┘
 *
 * It keeps the host's user namespace all the time, and with it the right to bear the child into a cgroup. The child
 * joins what cannot be seen from inside by itself (exec_child.c). On hosts with cgroups of version 1 it joins them by
 * itself, too: until then its path there is that of the supervisor's cgroup, as seen from the container's.
 */
#include "exec.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int host_mounts = -1, host_network = -1, host_proc = -1, ourselves = -1;

int open_at_host_proc(const char *path, int flags)
{
	return (int)syscall(SYS_openat, host_proc, path, flags | O_CLOEXEC);
}

int look_around(void)
{
	host_mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	host_network = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	host_proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	ourselves = (int)syscall(SYS_pidfd_open, getpid(), 0);
	return host_mounts < 0 || host_network < 0 || host_proc < 0 || ourselves < 0 ? -1 : 0;
}

int keep_only_supervisor(void)
{
	return dup2(ourselves, SUPERVISOR_FD) < 0 ? -1 : close_range(SUPERVISOR_FD + 1, ~0u, 0);
}

void die_with_supervisor(void)
{
	struct pollfd supervisor = { SUPERVISOR_FD, POLLIN, 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (poll(&supervisor, 1, 0))
		_exit(CANNOT_EXECUTE);
	close(SUPERVISOR_FD);
}

int step_inside(void)
{
	return setns(INIT_FD, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID);
}

int step_outside(void)
{
	int number = errno, result = setns(host_mounts, CLONE_NEWNS) < 0 || setns(host_network, CLONE_NEWNET) < 0 ? -1 : 0;

	if (!result)
		errno = number;
	return result;
}
