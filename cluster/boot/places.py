"""Files that the boot layer reads and writes."""

FOLDER = "/boot/firmware"  # the boot partition
BACKUPS = "/var/backups/picluster-boot"  # on the root file system: the partition is small
KEPT = 5  # copies of each file
UDEV_RULE = "/etc/udev/rules.d/60-picluster-trim.rules"
WATCHDOG = "/etc/systemd/system.conf.d/90-picluster-watchdog.conf"
# Lines about what was changed since boot; /run is empty after one.
PENDING = "/run/picluster-boot-pending"
BOOTLOADER = "bootloader"  # the line that says that an EEPROM was written
