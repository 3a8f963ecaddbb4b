"""Stand-ins for SLURM's commands on PATH: what they answer stands in files, what they were asked is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SCRIPTS = {
    # Rows of `queue` are "number|name|state|reason|nodes"; each call takes the first file of a series, if there is one.
    "squeue": """
echo "$@" >> {folder}/asked
next=$(ls {folder}/queue.* 2>/dev/null | head -n 1)
[ -n "$next" ] && mv "$next" {folder}/queue
if grep -q '^error: ' {folder}/queue 2>/dev/null; then
  sed 's/^error: /squeue: error: /' {folder}/queue >&2
  exit 1
fi
for option in "$@"; do
  case "$option" in
    --jobs=*) number=${option#--jobs=} ;;
    --name=*) name=${option#--name=} ;;
  esac
done
[ -e {folder}/queue ] || exit 0
while IFS='|' read -r id job rest; do
  [ -n "$number" ] && [ "$number" != "$id" ] && continue
  [ -n "$name" ] && [ "$name" != "$job" ] && continue
  echo "$id|$job|$rest"
done < {folder}/queue
""",
    "scancel": 'echo "$@" >> {folder}/cancelled\n',
    "sbatch": """
echo "$@" >> {folder}/submitted
cp "$1" {folder}/script
refusal=$(ls {folder}/refusal.* 2>/dev/null | head -n 1)
if [ -n "$refusal" ]; then cat "$refusal" >&2; rm "$refusal"; exit 1; fi
echo "Submitted batch job 7"
""",
    "srun": "exit 0\n",
}


@dataclass(frozen=True)
class FakeSlurm:
    """What the stand-ins answer and were asked."""

    folder: Path

    def queue(self, *answers: str) -> None:
        """What squeue says: rows, or "error: text"; of several answers one after the other, then the last."""
        (self.folder / "queue").unlink(missing_ok=True)
        for number, answer in enumerate(answers):
            (self.folder / f"queue.{number}").write_text(answer + "\n")

    def refuse(self, message: str, times: int = 1) -> None:
        """Have sbatch refuse the next job, or try."""
        for number in range(times):
            (self.folder / f"refusal.{number}").write_text(message + "\n")

    def told(self, what: str) -> list[str]:
        """Lines that "asked", "submitted" or "cancelled" commands were called with."""
        path = self.folder / what
        return path.read_text().splitlines() if path.exists() else []

    @property
    def script(self) -> list[str]:
        """What was submitted last."""
        return (self.folder / "script").read_text().splitlines()


def install(folder: Path) -> FakeSlurm:
    """Write the stand-ins to `bin` of a folder."""
    (folder / "bin").mkdir(parents=True)
    for name, script in _SCRIPTS.items():
        path = folder / "bin" / name
        path.write_text("#!/bin/bash\n" + script.replace("{folder}", str(folder)))
        path.chmod(0o755)
    return FakeSlurm(folder)
