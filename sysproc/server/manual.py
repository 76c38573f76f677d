"""What `sysprocd --help` and sysprocd(8) end with: exit status, environment, files, examples.

Written as `--help` shows it, one line each; `scripts/make-man-pages` makes sections of it. The options, each with its
variable, are `sysproc.server.settings`.
"""

EPILOG = """Settings come from flags, else the environment, else the TOML file, else the default.

\b
Exit status:
  0  it was told to end by SIGTERM or SIGINT; containers live on
  1  it cannot run; standard error says why
  2  the command line is wrong

\b
Environment:
  SYSPROC_CONFIG  the TOML file, where --config is not given
  SYSPROC_...     each setting, by the variable that its option names
  PATH            where busybox, mkfs and the like are looked for
  NOTIFY_SOCKET   told when it is ready, see sd_notify(3)

\b
Files:
  /etc/sysproc/sysprocd.toml  settings, by the names of the options
  /etc/sysproc/tls            for tcp://: certificates and keys
  /var/lib/sysproc            what lasts: database, images, containers, volumes
  /run/sysproc/sysproc.sock   the API, for callers of this host
  /run/sysproc-uids           which daemon of this host has which uids

\b
Examples:
  sysprocd --print-settings
  sysprocd --state-dir /srv/test/state --runtime-dir /srv/test/run
  sysprocd --listen unix:///run/sysproc/sysproc.sock --listen tcp://0.0.0.0:7443
"""
