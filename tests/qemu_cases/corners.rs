//! Corners of the command line that the vectors do not reach.

use crate::line::{self, parse};
use crate::path;

/// What the block layer and others do in corners that the vectors do not reach.
#[test]
fn corners() {
    let table: &[(&[&str], &[&str])] = &[
        // The last file= counts, and -set comes later still.
        (
            &[
                "-drive",
                "id=d,file=/a,file=/b,if=none",
                "-set",
                "drive.d.file=/c",
            ],
            &["5 -set drive.d.file: /c write exclusive"],
        ),
        // backing.read-only=off opens a named backing file for writing.
        (
            &[
                "-blockdev",
                "driver=qcow2,node-name=t,file.driver=file,file.filename=/t,backing.driver=raw,backing.read-only=off,backing.file.driver=file,backing.file.filename=/b",
            ],
            &[
                "3 -blockdev backing.file.filename: /b write exclusive",
                "3 -blockdev file.filename: /t write exclusive",
            ],
        ),
        (
            &[
                "-blockdev",
                "driver=qcow2,node-name=t,file.driver=file,file.filename=/t,backing.driver=raw,backing.file.driver=file,backing.file.filename=/b",
            ],
            &[
                "3 -blockdev backing.file.filename: /b read content",
                "3 -blockdev file.filename: /t write exclusive",
            ],
        ),
        // A CD drive leaves a raw image alone, a qcow2 image not.
        (
            &[
                "-blockdev",
                "driver=raw,node-name=c,file.driver=file,file.filename=/c,auto-read-only=on",
                "-device",
                "scsi-cd,drive=c",
            ],
            &["3 -blockdev file.filename: /c read content"],
        ),
        (
            &[
                "-blockdev",
                "driver=qcow2,node-name=c,file.driver=file,file.filename=/c,auto-read-only=on",
                "-device",
                "scsi-cd,drive=c",
            ],
            &["3 -blockdev file.filename: /c write exclusive"],
        ),
        // A reader and a writer on one node.
        (
            &[
                "-drive",
                "id=d,if=none,file=/d,format=raw",
                "-device",
                "ide-cd,drive=d",
                "-device",
                "virtio-blk-pci,drive=d",
            ],
            &["3 -drive file: /d write exclusive"],
        ),
        // Nobody uses it yet: the monitor may.
        (
            &["-drive", "if=none,id=d,file=/d,format=raw"],
            &["3 -drive file: /d write exclusive"],
        ),
        (
            &[
                "-blockdev",
                "{'driver':'file','node-name':'f','filename':'/d','auto-read-only':true}",
            ],
            &["3 -blockdev filename: /d write exclusive"],
        ),
        // Filters pass on what is asked of them; a target is written.
        (
            &[
                "-blockdev",
                "driver=file,node-name=f,filename=/f,auto-read-only=on",
                "-blockdev",
                "driver=throttle,throttle-group=g,node-name=t,file=f,auto-read-only=on",
                "-device",
                "ide-cd,drive=t",
            ],
            &["3 -blockdev filename: /f read content"],
        ),
        (
            &[
                "-blockdev",
                "driver=copy-before-write,read-only=off,node-name=x,file.driver=file,file.filename=/f,target.driver=file,target.filename=/t",
            ],
            &[
                "3 -blockdev file.filename: /f write exclusive",
                "3 -blockdev target.filename: /t write exclusive",
            ],
        ),
        // -snapshot: not for -blockdev, not where the drive says off.
        (
            &[
                "-snapshot",
                "-drive",
                "file=/a,format=raw",
                "-drive",
                "file=/b,format=raw,snapshot=off",
                "-blockdev",
                "driver=file,node-name=c,filename=/c",
                "-hda",
                "/d",
            ],
            &[
                "4 -drive snapshot: /var/tmp/vl.… create exclusive",
                "4 -drive file: /a read content",
                "6 -drive file: /b write exclusive",
                "8 -blockdev filename: /c write exclusive",
                "10 -hda : /var/tmp/vl.… create exclusive",
                "10 -hda : /d read content",
            ],
        ),
        // Legacy names.
        (
            &["-drive", "file=fat:rw:/dos"],
            &[
                "3 -drive file: /dos tree keep",
                "3 -drive file: /var/tmp/vl.… create exclusive",
            ],
        ),
        (
            &[
                "-hda",
                "json:{'driver':'qcow2','file':{'driver':'file','filename':'/j'}}",
            ],
            &["3 -hda : /j write exclusive"],
        ),
        (&["-hda", "file:a:b"], &["3 -hda : a:b write exclusive"]),
        (
            &[
                "-drive",
                "file.driver=nbd,file.server.type=unix,file.server.path=/n,format=raw",
            ],
            &["3 -drive file.server.path: /n connect keep"],
        ),
        (
            &[
                "-drive",
                "driver=blkverify,raw.driver=file,raw.filename=/r,test.driver=raw,test.file.driver=file,test.file.filename=/t",
            ],
            &[
                "3 -drive test.file.filename: /t write exclusive",
                "3 -drive raw.filename: /r write exclusive",
            ],
        ),
        (
            &["-drive", "if=none,media=cdrom", "-drive", "file=,if=none"],
            &[],
        ),
        (
            &[
                "-blockdev",
                "driver=host_cdrom,node-name=x,filename=/dev/sr0,read-only=on",
            ],
            &["3 -blockdev filename: /dev/sr0 read content"],
        ),
        // Machine keys and options are one dictionary.
        (
            &["-kernel", "/a", "-machine", "q35,kernel=/b,firmware=/f"],
            &[
                "5 -machine kernel: /b read content",
                "5 -machine firmware: /f read content",
            ],
        ),
        // Words that add up.
        (
            &["-spice", "unix=on", "-spice", "addr=/s"],
            &["5 -spice addr: /s bind keep"],
        ),
        (
            &["-icount", "rr=record", "-icount", "rrfile=/r"],
            &["5 -icount rrfile: /r create exclusive"],
        ),
        (
            &["-vnc", "unix:/a,vnc=unix:/b,websocket=unix:/c"],
            &[
                "3 -vnc vnc: /a bind keep",
                "3 -vnc vnc: /b bind keep",
                "3 -vnc websocket: /c bind keep",
            ],
        ),
        (
            &["-display", "vnc=unix:/a"],
            &["3 -display vnc: /a bind keep"],
        ),
        (
            &["-display", "dbus,addr=unix:path=/bus"],
            &["3 -display addr: /bus connect keep"],
        ),
        // Networks.
        (
            &["-nic", "tap,script=no,downscript=,vhost=on"],
            &[
                "3 -nic type: /dev/net/tun write keep",
                "3 -nic vhost: /dev/vhost-net write keep",
            ],
        ),
        (
            &["-netdev", "tap,id=n"],
            &[
                "3 -netdev type: /dev/net/tun write keep",
                "3 -netdev script: /etc/qemu-ifup exec keep",
                "3 -netdev downscript: /etc/qemu-ifdown exec keep",
            ],
        ),
        (
            &["-netdev", "vde,id=n,sock=/v"],
            &[
                "3 -netdev sock: /v tree keep",
                "3 -netdev sock: /v/ctl connect keep",
                "3 -netdev sock: /v/.… bind keep",
            ],
        ),
        (
            &[
                "-netdev",
                "{'type':'user','id':'n','guestfwd':[{'str':'tcp:1.2.3.4:5-unix:/g'}]}",
            ],
            &["3 -netdev guestfwd: /g connect keep"],
        ),
        // Objects.
        (
            &["-object", "tls-creds-psk,id=t,dir=/p,endpoint=server"],
            &[
                "3 -object dir: /p/keys.psk read exclusive",
                "3 -object dir: /p/dh-params.pem read content",
            ],
        ),
        (
            &[
                "-object",
                "memory-backend-file,id=m,mem-path=/m,size=1M,share=on",
                "-device",
                "ivshmem-plain,memdev=m",
            ],
            &["3 -object mem-path: /m write shared"],
        ),
        (
            &["-object", "memory-backend-file,id=m,mem-path=/m,size=1M"],
            &["3 -object mem-path: /m write exclusive"],
        ),
        (
            &["-tpmdev", "passthrough,id=t"],
            &[
                "3 -tpmdev type: /dev/tpm0 write exclusive",
                "3 -tpmdev type: /sys/class/tpm/tpm0/device/cancel write exclusive",
            ],
        ),
        // Defaults for classes of devices.
        (
            &["-global", "virtio-net-pci.romfile=/r"],
            &["3 -global romfile: /r read content"],
        ),
        (
            &["-global", "driver=ds1225y,property=filename,value=/n"],
            &["3 -global filename: /n write exclusive"],
        ),
        // Descriptors.
        (
            &[
                "-add-fd",
                "fd=9,set=1",
                "-add-fd",
                "fd=10,set=2",
                "-pidfile",
                "/dev/fdset/2",
            ],
            &[
                "3 -add-fd fd: fd 9 write keep",
                "7 -pidfile : fd 10 write keep",
            ],
        ),
        (&["-incoming", "fd:5"], &["3 -incoming : fd 5 write keep"]),
        (
            &[
                "-incoming",
                "main,addr.transport=file,addr.filename=/m,addr.offset=0",
            ],
            &["3 -incoming addr.filename: /m read exclusive"],
        ),
        // Accelerators.
        (&["-machine", "pc,accel=tcg:kvm"], &[]),
        (
            &["-machine", "pc,accel=tcg", "-enable-kvm"],
            &["4 -enable-kvm : /dev/kvm write keep"],
        ),
        (
            &["-accel", "kvm,device=/dev/kvm2"],
            &["3 -accel device: /dev/kvm2 write keep"],
        ),
    ];
    for (words, want) in table {
        let line = parse("qemu-system-x86_64", words);
        let seen = line::requests(&line, |target| path(target, &line));
        line::check(words, &seen, want);
    }
}

/// Each row went wrong once: the real QEMU did something else (tests/enforcing/differential.rs).
#[test]
fn which_of_several_words_counts() {
    type Row<'a> = (&'a [&'a str], &'a [&'a str]);
    let table: &[Row<'_>] = &[
        // Renaming readonly to read-only turns the order around.
        (
            &["-drive", "file=/a,format=raw,readonly=off,readonly=on"],
            &["3 -drive file: /a write exclusive"],
        ),
        (
            &["-drive", "file=/a,format=raw,read-only=off,read-only=on"],
            &["3 -drive file: /a read content"],
        ),
        (
            &[
                "-drive",
                "id=d,file=/a,format=raw,readonly=off",
                "-set",
                "drive.d.readonly=on",
            ],
            &["3 -drive file: /a write exclusive"],
        ),
        (
            &["-pidfile", "/a", "-pidfile", "/b"],
            &["5 -pidfile : /b create exclusive"],
        ),
        (
            &["-trace", "file=/a", "-D", "/d", "-trace", "vm_*"],
            &["5 -D : /d create exclusive"],
        ),
        (
            &["-M", "boot.splash=/a", "-boot", "splash=/b"],
            &["5 -boot splash: /b read content"],
        ),
        (
            &["-boot", "splash=/b", "-M", "boot.splash=/a"],
            &["5 -M boot.splash: /a read content"],
        ),
        (
            &["-D", "/log-%d", "-d", "unimp"],
            &["3 -D : /log-… create exclusive"],
        ),
        // A drive without medium is there for devices.
        (
            &["-drive", "if=none,id=e", "-device", "ide-cd,drive=e"],
            &[],
        ),
        // blkdebug takes a plain name.
        (
            &["-drive", "driver=blkdebug,image.filename=/a"],
            &["3 -drive image.filename: /a write exclusive"],
        ),
        // What the line says of a backing file's own backing file.
        (
            &[
                "-drive",
                "file=/a,format=qcow2,backing.driver=qcow2,backing.backing.file.filename=/c",
            ],
            &[
                "3 -drive backing.backing.file.filename: /c read content",
                "3 -drive file: /a write exclusive",
            ],
        ),
    ];
    for (words, want) in table {
        let line = parse("qemu-system-x86_64", words);
        let seen = line::requests(&line, |target| path(target, &line));
        line::check(words, &seen, want);
        assert_eq!(line.warnings.len(), 0, "{words:?}");
    }
}
