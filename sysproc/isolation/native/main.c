/*
 * Chooses the mode. argv[1] names it; without arguments the program is init, which has nothing to be told.
 */
#include "native.h"

#include <string.h>
#include <sys/prctl.h>

void hide_and_name(const char *name)
{
	prctl(PR_SET_DUMPABLE, 0);
	prctl(PR_SET_NAME, name);
}

void ignore_termination(void)
{
	static const int signals[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGXFSZ, SIGUSR1, SIGUSR2 };

	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		signal(signals[i], SIG_IGN);
}

char *add_text(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	return to;
}

char *add_number(char *to, unsigned number)
{
	if (number >= 10)
		to = add_number(to, number / 10);
	*to++ = (char)('0' + number % 10);
	return to;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "init";

	if (!strcmp(mode, "init"))
		return init_main();
	if (!strcmp(mode, "keep"))
		return keep_main();
	if (!strcmp(mode, "exec"))
		return exec_main();
	return 2;
}
