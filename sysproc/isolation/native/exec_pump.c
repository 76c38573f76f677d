/*
 * Carries the input and output of one process between its pipes, or its terminal, and the spool files.
 *
 *     stdin file ──▶ pipe ──▶ process ──▶ pipe ──splice──▶ stdout file        bytes leave a pipe only into the file
 *                                     ──▶ pipe ──splice──▶ stderr file
 *     stdin file ──▶ pty master ──▶ process ──▶ pty master ──splice──▶ pipe ──splice──▶ stdout file
 *
 * The file's size is the offset of the next byte. What lies before `freed` has been punched out. At the bound, what
 * readers have taken is freed; if that is not enough the process waits at its full pipe, or the oldest goes. A disk
 * that cannot take more (ENOSPC, EIO) is tried again; until then the process waits, and nothing is lost.
 *
 *     RUNNING --it ended--> ENDED: what is in the pipes now is still its output, and is moved even beyond the bound
 *             --moved--> DONE --> sink: what stays behind in the container and still writes is not disturbed, what it
 *                                 writes is dropped; a terminal is hung up instead --nobody writes--> exit
 */
#include "exec.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WAKE, CHILD, TERMINAL, INPUT, OUTPUT, POLLED = OUTPUT + 2 };
enum { BLOCK = 4096, AT_ONCE = 1 << 20, ROUNDS = 16, RETRY_MS = 200, STDIN_PUNCH = 1 << 20, TERMINAL_REST = 1 << 20 };

struct stream {
	int pipe, file;
	unsigned taken_slot, freed_slot;
	uint64_t size, freed;
	uint64_t rest;             /* from PHASE_ENDED on: what is still its output */
	bool full;
};

static struct {
	struct stream streams[2];
	int child, master, terminal_socket, relay, input;
	uint64_t bound, consumed, punched, window, signals, terminal_end;
	uint32_t flags;
	char last_input;
	bool drop_oldest, ended, input_waits;
	int trouble;
} job;

static void set_trouble(int number)
{
	job.trouble = number;
	if (get(STATE_TROUBLE) != (uint64_t)number)
		put(STATE_TROUBLE, (uint64_t)number);
}

static void punch(int file, uint64_t from, uint64_t to)
{
	(void)!fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from));
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/*
 * Readers look at `freed` after they have read: so it is said before it is done. Where the filesystem cannot punch
 * holes the bound holds for what is kept, not for the disk; all that state directories are put on can.
 */
static void free_until(struct stream *stream, uint64_t offset)
{
	offset -= offset % BLOCK;
	if (offset <= stream->freed)
		return;
	put(stream->freed_slot, offset);
	punch(stream->file, stream->freed, offset);
	stream->freed = offset;
}

static void free_taken(struct stream *stream)
{
	uint64_t taken = get(stream->taken_slot);

	free_until(stream, taken < stream->size ? taken : stream->size);
}

/* How much may be moved now. Freeing goes by quarters of the bound, or when readers have all there is. */
static uint64_t room(struct stream *stream)
{
	uint64_t kept = stream->size - stream->freed, taken;

	if (job.ended)
		return stream->rest;
	if (kept < job.bound)
		return job.bound - kept;
	taken = get(stream->taken_slot);
	if (taken >= stream->size || taken >= stream->freed + job.bound / 4)
		free_taken(stream);
	else if (job.drop_oldest)
		free_until(stream, stream->size - job.bound + job.bound / 4);
	kept = stream->size - stream->freed;
	return kept < job.bound ? job.bound - kept : 0;
}

static void close_terminal(void)
{
	close_fd(&job.master);
	close_fd(&job.relay);
	job.input = -1;
}

/* The end, nothing to move now, or a disk that is full: what readers have taken may make room there. */
static void cannot_move(struct stream *stream, int number)
{
	if (!number)
		close_fd(&stream->pipe);
	if (!number || number == EAGAIN) {
		/* Also if somebody inside has read the pipe empty. */
		stream->rest = 0;
	} else if (number != EINTR) {
		free_taken(stream);
		set_trouble(number);
	}
}

static void move(struct stream *stream)
{
	uint64_t begin = stream->size;

	stream->full = false;
	for (int round = 0; round < ROUNDS && stream->pipe >= 0; round++) {
		uint64_t space = room(stream);
		loff_t at = (loff_t)stream->size;
		ssize_t moved;

		stream->full = !space;
		if (!space)
			break;
		moved = splice(stream->pipe, NULL, stream->file, &at, space < AT_ONCE ? space : AT_ONCE,
			       SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
		if (moved <= 0) {
			cannot_move(stream, moved < 0 ? errno : 0);
			break;
		}
		stream->size += (uint64_t)moved;
		stream->rest -= job.ended ? (uint64_t)moved : 0;
	}
	if (stream->size > begin)
		eventfd_write(NEWS_FD, 1);
}

/* From the terminal into the pipe before the file; EIO says that no process has it open any more. */
static bool fill_relay(void)
{
	ssize_t got = splice(job.master, NULL, job.relay, NULL, BLOCK, SPLICE_F_NONBLOCK);

	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
		close_terminal();
	return got > 0;
}

static void move_terminal(void)
{
	struct stream *out = &job.streams[0];

	move(out);
	for (int round = 0; round < ROUNDS && job.master >= 0 && !out->full && !job.trouble && fill_relay(); round++)
		move(out);
}

static uint64_t bytes_in(int pipe)
{
	int count = 0;

	return pipe >= 0 && ioctl(pipe, FIONREAD, &count) == 0 ? (uint64_t)count : 0;
}

/* The process has ended. n_tty says EAGAIN only when nothing is on its way; what others write on has its limit. */
static void finish_terminal(void)
{
	struct stream *out = &job.streams[0];

	for (;;) {
		out->rest = bytes_in(out->pipe);
		move(out);
		if (job.master < 0 || out->rest)
			return;
		if (out->size >= job.terminal_end || !fill_relay())
			close_terminal();
	}
}

static void move_output(void)
{
	job.trouble = 0;
	if (job.flags & FLAG_TERMINAL && job.ended)
		finish_terminal();
	else if (job.flags & FLAG_TERMINAL)
		move_terminal();
	else
		for (int i = 0; i < 2; i++)
			move(&job.streams[i]);
	if (!job.trouble)
		set_trouble(0);
}

/* ---- input */

/* The end of input of a terminal: its end-of-file character, twice if the line has begun (termios(3), VEOF). */
static void type_end_of_file(void)
{
	struct terminal_settings settings;
	char twice[2];

	if (ioctl(job.master, TCGETS, &settings) < 0 || !(settings.local_flags & ICANON))
		return;
	twice[0] = twice[1] = (char)settings.characters[VEOF];
	(void)!write(job.master, twice, job.last_input && job.last_input != '\n' ? 2 : 1);
}

static void end_input(void)
{
	if (job.master >= 0)
		type_end_of_file();
	else
		close_fd(&job.input);
	job.input = -1;
}

static void break_input(void)
{
	if (job.master < 0)
		close_fd(&job.input);
	job.input = -1;
	put(STATE_STDIN_BROKEN, 1);
	eventfd_write(NEWS_FD, 1);
}

static void consume(size_t count)
{
	job.last_input = scratch[count - 1];
	job.consumed += count;
	put(STATE_STDIN_CONSUMED, job.consumed);
	if (job.consumed - job.punched >= STDIN_PUNCH) {
		punch(STDIN_FD, job.punched, job.consumed);
		job.punched = job.consumed;
	}
}

static void feed(void)
{
	uint64_t closed = get(STATE_STDIN_CLOSED), begin = job.consumed;
	ssize_t got, put_in;

	job.input_waits = false;
	while (job.input >= 0) {
		got = pread(STDIN_FD, scratch, sizeof scratch, (off_t)job.consumed);
		if (got <= 0)
			break;
		put_in = write(job.input, scratch, (size_t)got);
		if (put_in > 0) {
			consume((size_t)put_in);
		} else if (put_in == 0 || errno == EAGAIN) {
			job.input_waits = true;
			break;
		} else if (errno != EINTR) {
			break_input();
		}
	}
	if (job.consumed > begin)
		eventfd_write(NEWS_FD, 1);
	/* Looked at before the file was: all that was written before closing has been seen. */
	if (job.input >= 0 && closed && !job.input_waits)
		end_input();
}

/* ---- requests of the daemon */

/* By one born in the container's PID namespace: a group that has ended cannot be one of the host. False: none yet. */
static bool signal_foreground(int number)
{
	pid_t group = 0, envoy;
	int ended = 0;

	if (step_inside() < 0)
		return true;
	envoy = fork();
	if (envoy && step_outside() < 0)
		_exit(1);
	if (!envoy) {
		if (ioctl(job.master, TIOCGPGRP, &group) == 0 && group > 0)
			kill(-group, number);
		_exit(group <= 0);
	}
	while (envoy > 0 && waitpid(envoy, &ended, 0) < 0 && errno == EINTR)
		;
	return !(WIFEXITED(ended) && WEXITSTATUS(ended) == 1);
}

static void send_signals(void)
{
	uint64_t asked = get(STATE_SIGNALS_ASKED), begin = job.signals, entry;

	for (; job.signals < asked; put(STATE_SIGNALS_DONE, ++job.signals)) {
		entry = get(STATE_SIGNAL_RING + job.signals % SIGNAL_RING);
		if (entry >> 8 != job.signals + 1)
			break;
		if (job.master < 0 || !signal_foreground((int)(entry & 255)))
			syscall(SYS_pidfd_send_signal, job.child, (int)(entry & 255), NULL, 0);
	}
	if (job.signals > begin)
		eventfd_write(NEWS_FD, 1);
}

static void set_window(void)
{
	uint64_t asked = get(STATE_WINDOW);
	struct winsize size = { .ws_row = (unsigned short)(asked >> 16), .ws_col = (unsigned short)asked };

	if (asked == job.window || job.master < 0)
		return;
	job.window = asked;
	ioctl(job.master, TIOCSWINSZ, &size);
}

/* ---- the terminal arrives, the process ends */

static void receive_master(void)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr header;
	} control;
	char byte;
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control,
	};

	if (recvmsg(job.terminal_socket, &message, MSG_CMSG_CLOEXEC) == 1 && message.msg_controllen) {
		memcpy(&job.master, CMSG_DATA(&control.header), sizeof job.master);
		job.input = job.master;
	} else {
		close_fd(&job.relay);
	}
	close_fd(&job.terminal_socket);
}

/*
 * A process that somebody inside traces is his to reap first, and he may never do it: then it is told from /proc, and
 * whoever is its parent when he has ended reaps it.
 */
static int status_at_end(void)
{
	siginfo_t end = { 0 };

	if (waitid(P_PIDFD, (id_t)job.child, &end, WEXITED | WNOHANG) < 0)
		return -1;
	if (!end.si_pid)
		return (int)stat_field((pid_t)get(STATE_PID), STAT_EXIT_CODE);
	return end.si_code == CLD_EXITED ? end.si_status << 8 : end.si_status;
}

static void note_end(void)
{
	int status = status_at_end();
	struct timespec now;

	if (status < 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	put(STATE_ENDED_NS, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
	put(STATE_EXIT_NUMBER, (uint64_t)(WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)));
	put(STATE_EXIT_KIND, WIFEXITED(status) ? EXIT_CODE : EXIT_SIGNAL);
	put(STATE_PHASE, PHASE_ENDED);
	close_fd(&job.child);
	job.ended = true;
	for (int i = 0; i < 2; i++)
		job.streams[i].rest = bytes_in(job.streams[i].pipe);
	job.terminal_end = job.streams[0].size + TERMINAL_REST;
	if (!(job.flags & FLAG_TERMINAL))
		close_fd(&job.input);
	eventfd_write(NEWS_FD, 1);
}

static bool all_moved(void)
{
	return job.ended && job.master < 0 && !job.streams[0].rest && !job.streams[1].rest;
}

/* ---- the loop */

static void watch(struct pollfd *polled)
{
	bool terminal = job.flags & FLAG_TERMINAL, quiet = job.ended || job.trouble;
	short input = job.input_waits ? POLLOUT : 0;
	short output = terminal && !quiet && !job.streams[0].full ? POLLIN : 0;

	polled[WAKE] = (struct pollfd) { WAKE_FD, POLLIN, 0 };
	polled[CHILD] = (struct pollfd) { job.child, POLLIN, 0 };
	polled[TERMINAL] = (struct pollfd) { job.terminal_socket, POLLIN, 0 };
	/* A terminal that is not asked for anything would still report that it was hung up, again and again. */
	polled[INPUT] = (struct pollfd) { terminal && !(input | output) ? -1 : job.input, input | output, 0 };
	for (int i = 0; i < 2; i++) {
		struct stream *stream = &job.streams[i];

		polled[OUTPUT + i] = (struct pollfd) { terminal || quiet || stream->full ? -1 : stream->pipe, POLLIN, 0 };
	}
}

static void step(void)
{
	struct pollfd polled[POLLED];
	eventfd_t pokes;

	watch(polled);
	if (poll(polled, POLLED, job.trouble ? RETRY_MS : job.ended ? 0 : -1) < 0)
		return;
	if (polled[WAKE].revents)
		eventfd_read(WAKE_FD, &pokes);
	/* A reader of the pipe that has gone shows as an error of our end, which poll tells without being asked. */
	if (polled[INPUT].revents & POLLERR && job.input >= 0)
		break_input();
	if (polled[TERMINAL].revents)
		receive_master();
	send_signals();
	set_window();
	feed();
	move_output();
	if (polled[CHILD].revents) {
		note_end();
		move_output();
	}
}

/* Whoever still writes is neither blocked nor killed by SIGPIPE; it is no longer anybody's output. */
static void sink(void)
{
	struct pollfd polled[2];

	while (job.streams[0].pipe >= 0 || job.streams[1].pipe >= 0) {
		for (int i = 0; i < 2; i++)
			polled[i] = (struct pollfd) { job.streams[i].pipe, POLLIN, 0 };
		if (poll(polled, 2, -1) < 0)
			continue;
		for (int i = 0; i < 2; i++)
			if (polled[i].revents && read(job.streams[i].pipe, scratch, sizeof scratch) <= 0)
				close_fd(&job.streams[i].pipe);
	}
}

static void publish_done(void)
{
	put(STATE_STDOUT_SIZE, job.streams[0].size);
	put(STATE_STDERR_SIZE, job.streams[1].size);
	put(STATE_STDIN_BROKEN, 1);
	put(STATE_PHASE, PHASE_DONE);
	eventfd_write(NEWS_FD, 1);
	munmap(state, STATE_BYTES);
	close_range(STATE_FD, NEWS_FD, 0);
}

int pump(const struct spec *spec, const struct ends *ends, int child)
{
	job.streams[0] = (struct stream) {
		.pipe = ends->stdout_ours, .file = STDOUT_FD, .taken_slot = STATE_STDOUT_TAKEN,
		.freed_slot = STATE_STDOUT_FREED,
	};
	job.streams[1] = (struct stream) {
		.pipe = ends->stderr_ours, .file = STDERR_FD, .taken_slot = STATE_STDERR_TAKEN,
		.freed_slot = STATE_STDERR_FREED,
	};
	job.flags = spec->flags;
	job.bound = spec->bound;
	job.drop_oldest = spec->flags & FLAG_DROP_OLDEST;
	job.child = child;
	job.master = -1;
	job.terminal_socket = ends->terminal_ours;
	job.relay = ends->terminal_ours >= 0 ? ends->stdout_theirs : -1;
	job.input = ends->stdin_ours;
	if (job.input >= 0)
		fcntl(job.input, F_SETFL, O_NONBLOCK);
	while (!all_moved())
		step();
	publish_done();
	if (!(job.flags & FLAG_TERMINAL))
		sink();
	return 0;
}
