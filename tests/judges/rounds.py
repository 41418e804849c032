"""One pass over the tests of a judge on one trio: direct, or through the proxy."""

from servers import Proxy, Trio


class Round:
    """`program` is the proxy's, or None for direct. What is taken is for those that inherit."""

    # Of the servers, and of the proxy's group.
    options = []
    group = ""

    def __init__(self, folder, template, program):
        self.folder = folder
        self.template = template
        self.program = program
        self.replica_reads = 0.0
        self.notes = []
        folder.mkdir(parents=True, exist_ok=True)

    def all(self, tests):
        """Runs `tests`; answers those that passed, and those that failed."""
        trio = Trio(self.folder / "trio", self.template, self.options)
        proxy = None
        try:
            trio.start()
            self.prepare(trio)
            port = trio.primary.port
            if self.program:
                proxy = Proxy(self.program, trio, self.group)
                port = proxy.port
            passed, failed = self.take(tests, port, trio)
            self.examine(trio, proxy)
        finally:
            if proxy:
                proxy.stop()
                proxy.log.rename(self.folder / "pointsman.log")
            trio.stop()
        return passed, failed

    def prepare(self, trio):
        """What the suite expects to be there before it begins."""

    def examine(self, trio, proxy):
        """Replicas must have served reads, and no write may have begun on one."""
        for replica in trio.replicas if proxy else ():
            address = f"127.0.0.1:{replica.port}"
            self.replica_reads += proxy.metric("pointsman_queries_total", address)
            why = trio.trouble(replica)
            if why:
                self.notes.append(f"{replica.name}: {why}")
            strays = trio.strays(replica)
            if strays:
                self.notes.append(f"writes on a replica: {strays}")
        for note in self.notes:
            print(f"  note: {note}", flush=True)
