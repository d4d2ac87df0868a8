"""Stage `external`: clips of another system, from a folder or from a command, in the place of generated ones.

folder.py     the clips of each prompt in a folder
command.py    a command that writes clips, one call per prompt or for all
request.py    what a command is asked for, and what it has written
identity.py   when clips have to be read or generated again
importing.py  clips in the model's format, cut to one length
"""
