"""Filesystems of others, read without the kernel: entries come out, as from an archive.

    source            bytes of an image, bounded; which blocks were used already
    ext4*             ext2, ext3 and ext4: superblock, inodes, where their blocks are, directories, attributes
    erofs*            erofs, plain or compressed with LZ4 (`lz4`)
    tree              the walk from the root directory on: each file once, hard links after it

Everything here runs in the jail (`sysproc.isolation.jail`) and believes nothing. What is wrong with an image is the
errno of an OSError:

    EBADMSG       it is damaged: a checksum, a place outside of it, a block that two things have, a cycle
    EOPNOTSUPP    it has a feature that is not read here, which is named
    EUCLEAN       its journal has to be replayed first

Entries are written by `sysproc.isolation.unpack`.
"""
