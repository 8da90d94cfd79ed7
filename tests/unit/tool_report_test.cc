// SPDX-License-Identifier: Apache-2.0
// The report's sentences, tables and charts. tests/integration/test_report.py has a browser.
#include <gtest/gtest.h>

#include <limits>
#include <regex>

#include "tests/unit/control_fake_volume.h"
#include "tools/report.h"
#include "tools/report_chart.h"

namespace ckpt {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();

Event charted_event(uint64_t changed_bytes, uint64_t shipped_bytes) {
  Event event;
  event.kind = EventKind::kCheckpoint;
  event.time = sample_checkpoint(7).time;
  event.checkpoint = 7;
  event.changed_bytes = changed_bytes;
  event.shipped_bytes = shipped_bytes;
  return event;
}

Event other_event(EventKind kind) {
  Event event = charted_event(0, 0);
  event.kind = kind;
  return event;
}

size_t times_in(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "no " << part << "\nin " << text;
}

// Every number of these attributes is within the picture.
void expect_within_picture(const std::string& chart) {
  EXPECT_EQ(chart.find("nan"), std::string::npos);
  EXPECT_EQ(chart.find("inf"), std::string::npos);
  const std::regex attribute(R"re( (x|y|x1|x2|y1|y2|cx|cy|width|height)="([^"]*)")re");
  for (auto at = std::sregex_iterator(chart.begin(), chart.end(), attribute);
       at != std::sregex_iterator(); ++at) {
    const double value = std::stod((*at)[2]);
    EXPECT_GE(value, 0) << (*at)[0];
    EXPECT_LE(value, 960) << (*at)[0];
  }
}

// ---- charts

// There are twelve slots at least, and the scale ends at a step that the largest does not exceed.
TEST(ReportChart, ABarIsWhereItsSlotAndScaleSay) {
  const std::vector<Event> events{charted_event(1U << 20U, 1U << 14U)};
  const std::string chart = bytes_chart(events);
  expect_part(chart, R"(viewBox="0 0 960 258")");
  expect_part(chart, R"(class="bar changed" x="93.42" y="22.00" width="34.00" height="210.00">)");
  expect_part(chart, R"(class="bar shipped" x="101.92" y="127.00" width="17.00" height="105.00">)");
  EXPECT_EQ(times_in(chart, "class=\"grid\""), 3U) << "256 bytes, 16 KiB, 1 MiB";
  expect_part(chart, ">256 bytes<");
  expect_part(chart, ">1.0 MiB<");
}

TEST(ReportChart, ALittleCanStillBeSeen) {
  const std::vector<Event> events{charted_event(0, 1)};
  const std::string chart = bytes_chart(events);
  expect_part(chart, R"(y="230.50" width="34.00" height="1.50")");
  expect_part(chart, R"(y="230.50" width="17.00" height="1.50")");
}

TEST(ReportChart, BarsAreInTheirOrderAndFitTheirSlots) {
  const std::vector<Event> events(kSlotsMax, charted_event(4096, 512));
  const std::string chart = bytes_chart(events);
  EXPECT_EQ(times_in(chart, "bar changed"), kSlotsMax);
  // 874 units are 160 slots, of which a bar takes four fifths.
  expect_part(chart, R"(x="74.55" y=)");
  expect_part(chart, R"(x="943.08" y=)");
  EXPECT_EQ(times_in(chart, R"(width="4.37")"), kSlotsMax);
  EXPECT_LE(times_in(chart, "class=\"time\""), 6U) << "times would lie upon each other";
  expect_within_picture(chart);
}

TEST(ReportChart, HowLongItTookIsADot) {
  Event event = charted_event(4096, 4096);
  event.confirm = milliseconds(10);
  event.stall = microseconds(100);
  const std::string chart = times_chart(std::vector{event});
  expect_part(chart, R"(class="dot confirm" cx="110.42" cy="22.00" r="4.50")");
  expect_part(chart, R"(class="dot stall" cx="110.42" cy="87.00" r="4.50")");
  expect_part(chart, ">1 us<");
  expect_part(chart, ">10.0 ms<");
}

TEST(ReportChart, TheLargestNumbersStayInThePicture) {
  Event event = charted_event(kMost, kMost);
  event.checkpoint = kMost;
  event.confirm = event.stall = std::chrono::nanoseconds::max();
  event.count = event.restored_bytes = kMost;
  std::vector<Event> events{event, charted_event(0, 0)};
  for (const EventKind kind : {EventKind::kVoid, EventKind::kMissed, EventKind::kRollback}) {
    events.push_back(event);
    events.back().kind = kind;
  }
  for (const std::string& chart : {bytes_chart(events), times_chart(events)}) {
    expect_within_picture(chart);
    expect_part(chart, "checkpoint " + std::to_string(kMost));
  }
}

TEST(ReportChart, WhatIsNoCheckpointIsAMark) {
  std::vector<Event> events{other_event(EventKind::kVoid), other_event(EventKind::kMissed),
                            other_event(EventKind::kRollback)};
  events[0].checkpoint = 0;
  events[0].text = "no space";
  events[1].count = 3;
  events[2].restored_bytes = 4096;
  const std::string chart = bytes_chart(events);
  expect_part(chart, R"(<g class="mark void"><line x1="110.4")");
  expect_part(chart, "void: one that had not begun, ");
  expect_part(chart, "\nno space</title>");
  expect_part(chart, "\u25b33</text>");
  expect_part(chart, "rollback to checkpoint 7, ");
  expect_part(chart, "4.0 KiB restored");
  EXPECT_EQ(times_in(chart, "class=\"bar"), 0U);
  EXPECT_EQ(times_in(times_chart(events), "class=\"dot"), 0U);
}

TEST(ReportChart, NamesAreOnlyShown) {
  Event event = charted_event(4096, 4096);
  event.name = "</title><b x='\"&\x1b";
  const std::string chart = bytes_chart(std::vector{event});
  expect_part(chart, "&lt;/title&gt;&lt;b x=&#39;&quot;&amp;?");
  EXPECT_EQ(chart.find("<b "), std::string::npos);
}

TEST(ReportChart, HasAPlaceForCheckpointsAndWhatBecameOfThem) {
  for (const EventKind kind :
       {EventKind::kCheckpoint, EventKind::kVoid, EventKind::kMissed, EventKind::kRollback}) {
    EXPECT_TRUE(is_charted(other_event(kind)));
  }
  for (const EventKind kind :
       {EventKind::kStart, EventKind::kStop, EventKind::kAccept, EventKind::kStore}) {
    EXPECT_FALSE(is_charted(other_event(kind)));
  }
}

// ---- the page

Report served_report() {
  Report report;
  report.status = FakeVolume::default_status();
  report.served = true;
  report.now = sample_checkpoint(7).time + seconds(30);
  return report;
}

TEST(ReportHeadline, SaysWhetherItIsProtected) {
  Report report = served_report();
  EXPECT_EQ(headline_of(report),
            "Protected: 20.0 KiB changed since checkpoint 7 \"before-7\", made 30 s ago.");
  report.status.state = "fenced";
  expect_part(headline_of(report), "30 s ago; clients are refused until `ckpt-tool accept`.");
  report.now = sample_checkpoint(7).time - seconds(5);  // another clock
  expect_part(headline_of(report), ", made just now");
  report.now = sample_checkpoint(7).time + seconds(90);
  expect_part(headline_of(report), ", made 1 min 30 s ago");
}

TEST(ReportHeadline, SaysWhyItIsNot) {
  Report report = served_report();
  report.status.state = "running";
  report.status.protection = false;
  EXPECT_EQ(headline_of(report), "Not protected: the back-up takes nothing.");
  report.status.last_checkpoint.reset();
  EXPECT_EQ(headline_of(report), "Not protected: no checkpoint exists yet.");
  report.status.problem = "disk full";
  EXPECT_EQ(headline_of(report), "Not protected: disk full.");
}

TEST(ReportHeadline, SaysThatNobodyServesIt) {
  Report report = served_report();
  report.served = false;
  EXPECT_EQ(headline_of(report),
            "Not served: no server runs; there is checkpoint 7 \"before-7\", made 30 s ago.");
  report.status.last_checkpoint.reset();
  report.status.problem = "gone";
  EXPECT_EQ(headline_of(report), "Not served: no server runs (gone); no checkpoint exists.");
}

TEST(ReportPage, OfNothingSaysSo) {
  Report report;
  report.status.image = "/srv/disk.img";
  const std::string page = report_page(report);
  expect_part(page, "<title>disk.img – ckpt</title>");
  expect_part(page, "None is on record yet.");
  expect_part(page, "Nothing is on record yet.");
  expect_part(page, "There is no back-up (backup=none)");
  expect_part(page, "<section class=\"headline warn\">");
  for (const char* part : {"<svg", "class=\"tile", "<th>last checkpoint"}) {
    EXPECT_EQ(page.find(part), std::string::npos) << part;
  }
}

TEST(ReportPage, OfOneCheckpointHasItsNumbers) {
  Report report = served_report();
  Event event = charted_event(1U << 20U, 4096);
  event.name = "nightly";
  event.confirm = milliseconds(12);
  report.events = {event};
  const std::string page = report_page(report);
  EXPECT_EQ(times_in(page, "<svg"), 2U);
  EXPECT_EQ(times_in(page, "class=\"bar changed\""), 1U);
  expect_part(page,
              "7 “<bdi>nightly</bdi>”: 1.0 MiB changed, 4.0 KiB shipped, confirmed in 12.0 ms, "
              "stall 0 us");
  expect_part(page, "<section class=\"headline good\">");
  expect_part(page, "<div class=\"tile warn\"><b>3</b><span>missed</span>");
  expect_part(page, "<div class=\"tile bad\"><b>2</b><span>void</span>");
  EXPECT_EQ(page.find("(the last"), std::string::npos);
}

TEST(ReportPage, ShowsTheLastOfMany) {
  Report report = served_report();
  report.events.assign(201, charted_event(4096, 512));
  report.events.front().checkpoint = 1;
  report.events.back().checkpoint = 999;
  const std::string page = report_page(report);
  expect_part(page, "(the last 160 of 201)");
  EXPECT_EQ(times_in(page, "bar changed\""), kSlotsMax);
  EXPECT_EQ(times_in(page, "<td class=\"what"), 200U);
  const size_t newest = page.find("<td>999: ");
  EXPECT_NE(newest, std::string::npos);
  EXPECT_LT(newest, page.find("<td>7: ")) << "it is on top";
  EXPECT_EQ(page.find("<td>1: "), std::string::npos);
}

TEST(ReportPage, WhatOthersChoseIsOnlyShown) {
  const std::string bad = "<script>\"'&\u202e\n";
  const std::string shown = "<bdi>&lt;script&gt;&quot;&#39;&amp;\u202e?</bdi>";
  Report report = served_report();
  report.status.image = "/srv/" + bad;
  report.status.store->address = report.status.store->error = report.status.problem = bad;
  report.status.last_checkpoint->name = bad;
  for (const EventKind kind : {EventKind::kVoid, EventKind::kMissed, EventKind::kStore}) {
    Event event = other_event(kind);
    event.text = event.name = event.state = bad;
    report.events.push_back(event);
  }
  const std::string page = report_page(report);
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_EQ(page.find("'&\u202e"), std::string::npos);
  // The image's name, the store's address and error, the last checkpoint's name, and of the events
  // two reasons, and a state with its error.
  EXPECT_EQ(times_in(page, shown), 8U);
  expect_part(page, "default-src 'none'");
}

TEST(ReportPage, SaysWhatHappened) {
  Report report = served_report();
  for (const EventKind kind : {EventKind::kStart, EventKind::kStop, EventKind::kAccept}) {
    report.events.push_back(other_event(kind));
  }
  Event rollback = other_event(EventKind::kRollback);
  rollback.restored_bytes = 8192;
  rollback.elapsed = milliseconds(5);
  rollback.fenced = true;
  Event failed = other_event(EventKind::kStore);
  failed.state = "failed";
  report.events.insert(report.events.end(), {rollback, failed});
  const std::string page = report_page(report);
  for (const char* what : {">server started<", ">server stopped<", ">clients accepted<",
                           "what e-bad\">back-up</td><td><bdi>failed</bdi>",
                           "to 7: 8.0 KiB restored in 5.0 ms, clients fenced"}) {
    expect_part(page, what);
  }
}

}  // namespace
}  // namespace ckpt
