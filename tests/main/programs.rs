//! The programs that scientists use, on the mount and on the same files on disk: same output.

use std::path::Path;
use std::process::{Command, Output};

use mock_earthdata::{World, from_directory};
use tempfile::TempDir;

use crate::support::{Mount, computed, world};

/// Whether `name` is installed; says so if not.
fn have(name: &str) -> bool {
    let found = Command::new(name).arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: no {name}");
    }
    found
}

fn run(directory: &Path, command: &[&str]) -> Output {
    let mut program = Command::new(command[0]);
    program.args(&command[1..]).current_dir(directory);
    let output = program.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {said}",
        output.status
    );
    output
}

/// Files on disk, the same in a bucket, and that mounted.
struct Samples {
    local: TempDir,
    mount: Mount,
    world: World,
}

impl Samples {
    /// Files of several sizes, in nested directories, and what `prepare` makes in the top one.
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let local = tempfile::tempdir().expect("a temporary directory");
        let root = local.path();
        std::fs::create_dir_all(root.join("2024/01")).expect("directories");
        std::fs::create_dir_all(root.join("2024/a name with blanks")).expect("directories");
        for (name, len) in [
            ("empty", 0),
            ("2024/small.txt", 13),
            ("2024/01/granule.bin", (3 << 20) + 17),
            ("2024/01/granule+é#1.bin", 70_001),
            ("2024/a name with blanks/one & two.dat", (1 << 20) + 1),
        ] {
            std::fs::write(root.join(name), computed(name, 0, len)).expect("a file");
        }
        prepare(root);
        let world = world(from_directory(root).expect("readable"));
        let mount = Mount::new(&world);
        Self {
            local,
            mount,
            world,
        }
    }

    /// Runs a command in the top directory on disk and on the mount; what it wrote is the same, and
    /// is returned.
    fn same_output(&self, command: &[&str]) -> String {
        let expected = run(self.local.path(), command).stdout;
        let got = run(&self.mount.root(), command).stdout;
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            got == expected,
            "{}\nand on disk\n{}",
            show(&got),
            show(&expected)
        );
        assert!(!got.is_empty(), "{command:?} says nothing");
        assert_eq!(self.world.counters().forbidden_operations, 0);
        show(&got)
    }

    /// What `diff -r` says of a copy: nothing.
    fn difference_to(&self, copy: &Path) -> String {
        let diff = Command::new("diff")
            .arg("-r")
            .args([self.local.path(), copy])
            .output();
        let diff = diff.expect("diff starts");
        format!(
            "{}{}",
            String::from_utf8_lossy(&diff.stdout),
            String::from_utf8_lossy(&diff.stderr)
        )
    }
}

#[test]
fn cat_and_md5sum_read_what_is_there() {
    let samples = Samples::new(|_| {});
    samples.same_output(&["cat", "2024/01/granule.bin", "empty", "2024/small.txt"]);
    let sums = samples.same_output(&[
        "sh",
        "-c",
        "find . -type f | LC_ALL=C sort | tr '\\n' '\\0' | xargs -0 md5sum",
    ]);
    assert_eq!(sums.lines().count(), 5, "{sums}");
}

#[test]
fn find_sees_the_same_tree() {
    let samples = Samples::new(|_| {});
    // Sizes of directories differ from one file system to the next; times come in whole seconds.
    let script = "(find . -type f -printf '%y %p %s %Ts\\n'; find . -type d -printf '%y %p\\n') | LC_ALL=C sort";
    let tree = samples.same_output(&["sh", "-c", script]);
    assert!(tree.contains("d ./2024/a name with blanks"), "{tree}");
    let large = samples.same_output(&["find", ".", "-size", "+1M", "-name", "gran*"]);
    assert_eq!(large, "./2024/01/granule.bin\n");
    let none = run(
        &samples.mount.root(),
        &["find", ".", "-newermt", "2100-01-01", "-type", "f"],
    );
    assert!(none.stdout.is_empty());
}

#[test]
fn cp_copies_the_whole_tree() {
    let samples = Samples::new(|_| {});
    let to = tempfile::tempdir().expect("a temporary directory");
    let copy = to.path().join("copy");
    run(
        &samples.mount.root(),
        &["cp", "-r", ".", copy.to_str().expect("UTF-8")],
    );
    assert_eq!(samples.difference_to(&copy), "");
    // Bytes that differ would be seen.
    let one = copy.join("2024/small.txt");
    let writable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&one, writable).expect("chmod");
    std::fs::write(one, "other bytes..").expect("written");
    assert!(samples.difference_to(&copy).contains("small.txt"));
}

#[test]
fn tar_archives_the_whole_tree() {
    let samples = Samples::new(|_| {});
    let to = tempfile::tempdir().expect("a temporary directory");
    let archive = to.path().join("samples.tar");
    let archive = archive.to_str().expect("UTF-8");
    run(&samples.mount.root(), &["tar", "-cf", archive, "."]);
    let names = |tar: &str| {
        let listing = run(to.path(), &["tar", "-tf", tar]).stdout;
        let listing = String::from_utf8(listing).expect("UTF-8");
        let mut names: Vec<_> = listing.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    run(
        samples.local.path(),
        &["tar", "-cf", &format!("{archive}.local"), "."],
    );
    let on_mount = names(archive);
    assert_eq!(on_mount, names(&format!("{archive}.local")));
    assert_eq!(on_mount.len(), 9, "{on_mount:?}");
    let unpacked = to.path().join("unpacked");
    std::fs::create_dir(&unpacked).expect("a directory");
    run(&unpacked, &["tar", "--no-same-permissions", "-xf", archive]);
    assert_eq!(samples.difference_to(&unpacked), "");
}

const GRID: &str = "netcdf sst {
dimensions: time = UNLIMITED; lat = 2; lon = 3;
variables:
  double time(time); time:units = \"days since 2000-01-01\";
  float lat(lat); lat:units = \"degrees_north\";
  float sst(time, lat, lon); sst:long_name = \"sea surface temperature\"; sst:_FillValue = -999.f;
  int counts(time, lat, lon);
  :title = \"of a test\"; :Conventions = \"CF-1.8\";
data:
  time = 1, 2; lat = -10, 10;
  sst = 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5, _, 12.5;
  counts = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12;
}
";

#[test]
fn ncdump_reads_netcdf_files() {
    if !have("ncgen") || !have("ncdump") {
        return;
    }
    let samples = Samples::new(|root| {
        std::fs::write(root.join("sst.cdl"), GRID).expect("a file");
        run(
            root,
            &["ncgen", "-k", "classic", "-o", "classic.nc", "sst.cdl"],
        );
        run(
            root,
            &["ncgen", "-k", "netCDF-4", "-o", "hdf5.nc", "sst.cdl"],
        );
    });
    for file in ["classic.nc", "hdf5.nc"] {
        let header = samples.same_output(&["ncdump", "-h", file]);
        assert!(header.contains("sea surface temperature"), "{header}");
        let times = samples.same_output(&["ncdump", "-v", "time", file]);
        assert!(times.contains("time = 1, 2 ;"), "{times}");
        samples.same_output(&["ncdump", file]);
    }
}

#[test]
fn gdalinfo_reads_geotiffs() {
    if !have("gdal_translate") || !have("gdalinfo") {
        return;
    }
    let samples = Samples::new(|root| {
        let mut grid =
            "ncols 300\nnrows 200\nxllcorner 5\nyllcorner 45\ncellsize 0.01\n".to_owned();
        for row in 0..200 {
            let values: Vec<_> = (0..300)
                .map(|column| (row * column % 251).to_string())
                .collect();
            grid.push_str(&values.join(" "));
            grid.push('\n');
        }
        std::fs::write(root.join("grid.asc"), grid).expect("a file");
        let tiled = [
            "-co",
            "TILED=YES",
            "-co",
            "COMPRESS=DEFLATE",
            "-a_srs",
            "EPSG:4326",
        ];
        let mut command = vec!["gdal_translate", "-q", "-of", "GTiff"];
        command.extend(tiled);
        command.extend(["grid.asc", "grid.tif"]);
        run(root, &command);
    });
    let told = samples.same_output(&["gdalinfo", "-checksum", "grid.tif"]);
    assert!(
        told.contains("Size is 300, 200") && told.contains("Checksum="),
        "{told}"
    );
    samples.same_output(&["gdalinfo", "-mm", "grid.asc"]);
}

#[test]
fn python_maps_a_file() {
    if !have("python3") {
        return;
    }
    let samples = Samples::new(|_| {});
    let script = "import mmap, hashlib\n\
        with open('2024/01/granule.bin', 'rb') as f:\n    \
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:\n        \
        print(len(m), hashlib.md5(m).hexdigest(), m[2**21:2**21 + 9].hex(), m.rfind(m[-20:]))\n";
    let told = samples.same_output(&["python3", "-c", script]);
    let size = (3 << 20) + 17;
    assert!(told.starts_with(&format!("{size} ")), "{told}");
    assert!(
        told.trim_end().ends_with(&format!(" {}", size - 20)),
        "{told}"
    );
}
