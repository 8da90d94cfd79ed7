// SPDX-License-Identifier: Apache-2.0
#include "plugin/start.h"

#include <set>

#include "common/saved_map.h"

namespace ckpt {
namespace {

constexpr char kSavedMapName[] = "saved-map";

// One start: its steps share what they have found so far.
class Start {
 public:
  Start(const Surroundings& surroundings, const StartOptions& options)
      : at_(surroundings), options_(options) {}
  Result<StartedVolume> run();

 private:
  Result<> create(const FileStamp& image);
  Result<> find(const FileStamp& image);
  Result<StartFacts> gather(const FileStamp& image);
  Result<> open_maps(bool keep);
  Result<> make_disk();
  Result<> mark_as_decided();
  Result<> set_as_decided();
  Result<> back_marked_regions();
  Result<> record_start(const FileStamp& image);

  const Surroundings& at_;
  const StartOptions& options_;
  StartedVolume started_;
  VolumeRecord found_;
  Geometry geometry_;
  std::unique_ptr<WrittenMaps> old_maps_;
  std::vector<BlockRange> saved_;
  std::string maps_name_;
};

Result<StartedVolume> Start::run() {
  // What a killed process wrote may be in the page cache only, and is about to be trusted.
  CKPT_TRY(at_.image.sync());
  CKPT_ASSIGN(const FileStamp image, at_.image.stamp());
  auto record = VolumeRecordFile::open(at_.state, at_.random);
  if (record) {
    started_.record = std::move(*record);
    // A start that was killed may have given it its name, and not synced that.
    CKPT_TRY(at_.state.sync());
    CKPT_TRY(find(image));
  } else if (record.error().kind == ErrorKind::kNotFound) {
    CKPT_TRY(create(image));
  } else {
    return Unexpected(record.error());
  }
  CKPT_TRY(mark_as_decided());
  CKPT_TRY(back_marked_regions());
  CKPT_TRY(set_as_decided());
  CKPT_TRY(record_start(image));
  return std::move(started_);
}

Result<> Start::create(const FileStamp& image) {
  geometry_ = Geometry::of_disk(image.size_bytes);
  if (options_.region_bytes != 0) {
    geometry_.region_bytes = options_.region_bytes;
  }
  if (options_.origin) {
    found_ = *options_.origin;
  } else {
    found_.volume = at_.random.uuid();
    found_.timeline = at_.random.uuid();
  }
  found_.size_bytes = image.size_bytes;
  found_.region_bytes = geometry_.region_bytes;
  found_.store_place = options_.store_place;
  CKPT_ASSIGN(started_.regions,
              RegionMap::create(at_.state, found_.volume, geometry_, RegionMap::Marks::kNone));
  CKPT_ASSIGN(started_.record, VolumeRecordFile::create(at_.state, found_, at_.random));
  started_.is_new = true;
  // Nothing is changed since a checkpoint that does not exist: the handshake orders the first copy.
  started_.decision = {ChangedSource::kSavedMap, "", false};
  CKPT_TRY(open_maps(false));
  return make_disk();
}

Result<> Start::find(const FileStamp& image) {
  found_ = started_.record->get();
  geometry_ = {found_.size_bytes, found_.region_bytes};
  if (image.size_bytes != found_.size_bytes) {
    return fail(ErrorKind::kInvalid,
                "the image has " + std::to_string(image.size_bytes) + " bytes, but its state in " +
                    at_.state.path() + " is of a disk of " + std::to_string(found_.size_bytes) +
                    " bytes; give the image its size back (truncate -s), or move the state "
                    "directory away to begin anew");
  }
  CKPT_ASSIGN(const StartFacts facts, gather(image));
  started_.decision = decide_start(facts);
  if (started_.regions == nullptr) {
    // All marked from its first moment: an empty one would look intact to the next start.
    CKPT_ASSIGN(started_.regions,
                RegionMap::create(at_.state, found_.volume, geometry_, RegionMap::Marks::kAll));
  }
  CKPT_TRY(open_maps(started_.decision.source == ChangedSource::kWrittenMaps));
  return make_disk();
}

Result<StartFacts> Start::gather(const FileStamp& image) {
  StartFacts facts{.record = found_,
                   .image = image,
                   .self = {},
                   .boot_id = at_.boot_id,
                   .boot_time = at_.boot_time,
                   .now = at_.clock.wall(),
                   .maps = std::nullopt,
                   .is_device = at_.image_is_device};
  CKPT_ASSIGN(facts.self, started_.record->stamp());
  if (auto maps = WrittenMaps::open(at_.memory, found_.maps_name, found_.volume, geometry_)) {
    old_maps_ = std::move(*maps);
    facts.maps = old_maps_->facts();
  }
  if (auto regions = RegionMap::open(at_.state, found_.volume, geometry_)) {
    started_.regions = std::move(*regions);
    facts.regions_intact = true;
  }
  if (auto runs =
          load_map(at_.state, kSavedMapName, found_.volume, found_.saved_map, geometry_.blocks())) {
    saved_ = std::move(*runs);
    facts.saved_map_intact = true;
  }
  return facts;
}

Result<> Start::open_maps(bool keep) {
  if (keep) {
    started_.maps = std::move(old_maps_);
    maps_name_ = found_.maps_name;
    return {};
  }
  maps_name_ = at_.random.uuid().to_string();
  CKPT_ASSIGN(started_.maps, WrittenMaps::create(at_.memory, maps_name_, found_.volume, geometry_));
  return {};
}

Result<> Start::make_disk() {
  started_.disk = std::make_unique<Disk>(geometry_, at_.image, *started_.maps, *started_.regions,
                                         at_.state, at_.clock, options_.preserve);
  const bool reuses = CKPT_PLANTED(reuse_epoch_numbers) && found_.last;
  started_.disk->epochs.set_number((reuses ? found_.last->id.number : found_.highest).next());
  if (found_.suspect) {
    started_.disk->trouble.sync_failed("before this start");
  }
  WrittenMaps* const maps = started_.maps.get();
  Disk* const disk = started_.disk.get();
  VolumeRecordFile* const record = started_.record.get();
  started_.record->set_observer({[maps](uint64_t nonce) { maps->prepare_nonce(nonce); },
                                 [maps](uint64_t nonce) { maps->commit_nonce(nonce); }});
  started_.regions->set_hooks(
      {.prepare = [maps](BlockRange regions) { return maps->allocate(regions); },
       .on_failure = [maps, record, geometry = geometry_](const Error&) -> Result<> {
         CKPT_TRY(maps->allocate({0, geometry.regions()}));
         return record->change([](VolumeRecord& changed) { changed.everything = true; });
       },
       .has_changes =
           [disk](uint64_t region) {
             return disk->is_changed(disk->geometry.region_blocks(region));
           }});
  return {};
}

// Before the record says that the image is known: else a crash in between would hide what is not.
Result<> Start::mark_as_decided() {
  if (started_.decision.source == ChangedSource::kEverything) {
    return started_.regions->mark({0, geometry_.regions()});
  }
  if (started_.decision.source == ChangedSource::kSavedMap) {
    std::set<uint64_t> regions;
    for (const BlockRange& run : saved_) {
      const BlockRange touched = geometry_.regions_of(run);
      for (uint64_t region = touched.first; region < touched.end; ++region) {
        regions.insert(region);
      }
    }
    return started_.regions->mark_each(regions);
  }
  return {};
}

// Backs the maps of all that is marked: a writer that finds its region marked touches them.
Result<> Start::back_marked_regions() {
  for (uint64_t region = 0; region < geometry_.regions(); ++region) {
    if (started_.regions->is_marked(region)) {
      CKPT_TRY(started_.maps->allocate({region, region + 1}));
    }
  }
  return {};
}

Result<> Start::set_as_decided() {
  ChangeMap& written = started_.disk->epochs.current().written;
  switch (started_.decision.source) {
    case ChangedSource::kSavedMap:
      for (const BlockRange& run : saved_) {
        CKPT_TRY(started_.maps->allocate(geometry_.regions_of(run)));
        written.set(run);
      }
      return {};
    case ChangedSource::kWrittenMaps: return started_.disk->epochs.adopt_bits(*started_.maps);
    case ChangedSource::kRegionMarks:
      for (uint64_t region = 0; region < geometry_.regions(); ++region) {
        if (started_.regions->is_marked(region)) {
          written.set(geometry_.region_blocks(region));
        }
      }
      return {};
    case ChangedSource::kEverything: written.set({0, geometry_.blocks()}); return {};
  }
  return {};
}

Result<> Start::record_start(const FileStamp& image) {
  CKPT_ASSIGN(const FileStamp self, started_.record->stamp());
  const std::string old_name = found_.maps_name;
  const bool had_clients = started_.decision.had_clients || found_.had_clients;
  CKPT_TRY(started_.record->change([&](VolumeRecord& record) {
    record.clean = false;
    record.everything = started_.regions->is_everything();
    record.had_clients = options_.offline && had_clients;
    record.boot_id = at_.boot_id;
    record.maps_name = maps_name_;
    record.image = image;
    record.self = self;
  }));
  started_.decision.had_clients = had_clients;
  started_.maps->restart(image.changed);
  // Those of a copied record are the original's, whose server may run.
  const bool is_copy = !self.same_file(found_.self);
  if (!old_name.empty() && old_name != maps_name_ && !is_copy) {
    // It may be gone already, with the boot that it was made in.
    (void)at_.memory.remove(old_name);
  }
  return {};
}

}  // namespace

Result<StartedVolume> start_volume(const Surroundings& surroundings, const StartOptions& options) {
  return Start(surroundings, options).run();
}

Result<> stop_volume(const Surroundings& surroundings, StartedVolume& volume) {
  Disk& disk = *volume.disk;
  if (disk.trouble.is_suspect()) {
    CKPT_TRY(volume.record->change([](VolumeRecord& record) { record.suspect = true; }));
  }
  CKPT_TRY(disk.sync_image());
  const VolumeRecord record = volume.record->get();
  CKPT_ASSIGN(const Digest digest, save_map(surroundings.state, kSavedMapName, record.volume,
                                            disk.epochs.current().written.runs(kSavedRunsMax)));
  CKPT_ASSIGN(const FileStamp image, surroundings.image.stamp());
  CKPT_TRY(volume.record->change([&](VolumeRecord& changed) {
    changed.clean = true;
    changed.everything = false;
    changed.saved_map = digest;
    changed.image = image;
  }));
  // If this fails, the next start removes them: their name is on record.
  return surroundings.memory.remove(record.maps_name);
}

}  // namespace ckpt
