"""Images: from Debian packages to a bootable Xen, kernel and initramfs pair."""
