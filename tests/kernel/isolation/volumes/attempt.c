// attempt uid            prints its effective uid: what a set-uid bit has made of it
// attempt listen PATH    a socket there, for everybody; says so, and waits
// attempt connect PATH   0 if somebody listens there whom it may reach
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_STREAM, 0);

	if (argc < 3)
		return printf("%u\n", geteuid()) < 0;
	strncpy(address.sun_path, argv[2], sizeof address.sun_path - 1);
	if (strcmp(argv[1], "connect") == 0)
		return connect(sock, (struct sockaddr *)&address, sizeof address) != 0;
	if (bind(sock, (struct sockaddr *)&address, sizeof address) || chmod(argv[2], 0666) || listen(sock, 1))
		return 1;
	puts("listening");
	fflush(stdout);
	return pause();
}
