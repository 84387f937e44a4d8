"""python -m edgedd"""

from edgedd.cli import main

main()
