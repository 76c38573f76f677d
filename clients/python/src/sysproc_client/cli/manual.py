"""What `--help` and the man pages end with besides the examples: exit status, environment, files.

Written as `--help` shows it, one line each; `scripts/make-man-pages` makes sections of it. The examples of subcommands
are in `sysproc_client.cli.examples`, what is said about `sysprocd` in `sysproc.server.manual`.
"""

TOP = """\b
Exit status:
  0    it was done
  1    it was not; standard error says why, and what to do
  2    the command line is wrong
  125  the same two of exec, run and attach, whose others are the command's
  130  it was interrupted; 128 and its number by another signal
  141  nobody reads its output any more

\b
Environment:
  SYSPROC_ENDPOINT  the service, where --endpoint is not given
  SYSPROC_TLS_CA    for tcp://: the service's authority, as --tls-ca
  SYSPROC_TLS_CERT  for tcp://: our certificate, as --tls-cert
  SYSPROC_TLS_KEY   for tcp://: its key, as --tls-key
  NO_COLOR          if not empty: no colours, on a terminal neither
  TERM              dumb: no colours; with exec -t also the command's

\b
Files:
  /run/sysproc/sysproc.sock  the service of this host, if no other is named

\b
Examples:
  sysproc create --name web --memory 256M
  sysproc exec -it web -- sh
  sysproc list -o json
  sysproc --endpoint unix:///srv/test/sysproc.sock tree
  sysproc destroy web
"""

_OF_A_COMMAND = """\b
Exit status:
  N      that of the command
  125    sysproc itself has failed; standard error says why
  126    the command is there and cannot be executed
  127    the command is not there
  128+N  a signal of this number has ended the command
"""

_OF_DOCTOR = """\b
Exit status:
  0  everything works
  1  something that may be asked for is refused
  2  containers cannot be made, or not by this caller
"""

# Of the subcommands where it is another than that of `sysproc`.
EXIT_STATUS = {"exec": _OF_A_COMMAND, "run": _OF_A_COMMAND, "attach": _OF_A_COMMAND, "doctor": _OF_DOCTOR}
