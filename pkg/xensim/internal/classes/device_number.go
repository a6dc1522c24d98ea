package classes

import (
	"strconv"
	"strings"
)

// Block devices have two names: the number that a client chooses (VBD.userdevice, "0", "1", …) and the name that a Linux
// guest sees (VBD.device, "xvda", "xvdb", …). This file turns one into the other.

// vbdDevices is how many positions a VM has for disks and CDs, vifDevices for network interfaces.
const (
	vbdDevices = 255
	vifDevices = 7
)

// autodetect is the userdevice with which a client leaves the choice to the server.
const autodetect = "autodetect"

// diskNumber is the position that a device name stands for. Names of all buses count (hdb, sdb, xvdb, 1), since they would
// clash.
func diskNumber(name string) (int, bool) {
	for _, prefix := range []string{"xvd", "sd", "hd"} {
		if rest, found := strings.CutPrefix(name, prefix); found {
			letters := strings.TrimRight(rest, "0123456789")
			return lettersToNumber(letters)
		}
	}
	number, err := strconv.Atoi(name)
	if err != nil || number < 0 {
		return 0, false
	}
	return number, true
}

// linuxDevice is the name in the guest of the disk at a position.
func linuxDevice(number int) string {
	return "xvd" + numberToLetters(number)
}

// numberToLetters counts a, b, … z, aa, ab, …
func numberToLetters(number int) string {
	letters := string(rune('a' + number%26))
	if number >= 26 {
		return numberToLetters(number/26-1) + letters
	}
	return letters
}

func lettersToNumber(letters string) (int, bool) {
	if letters == "" || len(letters) > 3 {
		return 0, false
	}
	number := 0
	for _, letter := range letters {
		if letter < 'a' || letter > 'z' {
			return 0, false
		}
		number = number*26 + int(letter-'a') + 1
	}
	return number - 1, true
}

// validUserdevice says whether VBD.create takes a userdevice. A name with a letter is good up to p (xvdp), numbers are not
// limited here: 999 is accepted (recording 0224).
func validUserdevice(name, vbdType string) bool {
	if name == autodetect {
		return true
	}
	for prefix, last := range map[string]byte{"sd": 'p', "xvd": 'p', "hd": 'p', "fd": 'b'} {
		rest, found := strings.CutPrefix(name, prefix)
		if !found || rest == "" || rest[0] < 'a' || rest[0] > last {
			continue
		}
		if rest[1:] == "" {
			return true
		}
		if _, err := strconv.Atoi(rest[1:]); err == nil {
			return true
		}
	}
	if vbdType == "Floppy" {
		return false
	}
	_, err := strconv.Atoi(name)
	return err == nil
}
