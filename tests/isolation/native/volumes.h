/* Where the volume is that both ends have, and what both files of its channels need. */
#pragma once
#define VOLUME "/volume"
#define OURS VOLUME "/ours"

char *in_volume(const char *name); /* a path with the secret in it; in /tmp where there is no volume */
int ours(void); /* OURS, for writing if that can be */
int writable(int fd);
