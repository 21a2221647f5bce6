// How many of an engine's threads compute while other programs want the same cores.
//
// ggml's threads wait for each other awake, some hundred times a pass: where one has lost its core, all wait until it
// has it back, so beside one busy program a core two threads are slower than one. When threads got clearly less
// processor time than they wanted, a survey times a few passes with fewer of them, and the fastest number computes;
// after a rest the next survey finds out whether the cores are free again. Pure: times come from the caller.
#pragma once

#include <cstddef>
#include <vector>

namespace shoal {

class ContentionGuard {
 public:
  static constexpr double kWindowS = 0.1;            // of passes, over which lost time is summed; at least,
  static constexpr double kWindowPerThreadS = 0.07;  // and this for each thread: its time is counted in ticks
  static constexpr double kLostShare = 0.15;         // of one thread's time: contended, and a survey worth its time
  static constexpr double kGapS = 1;                 // without a pass: what was seen before is compared with nothing
  static constexpr int kStepPasses = 3;              // timed for each number of threads, at least,
  static constexpr double kStepS = 0.03;             // and for so long;
  static constexpr double kStepEnoughS = 0.2;        // or for so long, however few they are; a clearly slow one once
  static constexpr double kClearlySlower = 2;        //
  static constexpr double kWorthIt = 1.05;           // times as fast as with more threads, to compute with fewer
  static constexpr double kPastTheBest = 1.3;        // times as slow as with more threads: fewer still are not timed
  static constexpr double kRestPerSurvey = 20;       // rest after a survey, in times of what it took,
  static constexpr double kRestMinS = 1;             // within these bounds,
  static constexpr double kRestMaxS = 20;            //
  static constexpr double kRestPerSurveyMin = 10;    // but in so many times of it;
  static constexpr double kCrowdedRestS = 60;        // longer, while even fewer threads lose their cores;
  static constexpr int kFruitlessMax = 4;            // doubled up to so many times, when fewer never helped
  static constexpr int kRowChangesMax = 8;           // of passes in a survey, which begins anew; then it is given up

  struct Pass {
    std::size_t rows = 0;   // compared are passes of about as many rows
    double seconds = 0;     // on the wall
    double idle_s = 0;      // before it
    double own_lost_s = 0;  // of `seconds`, without a core: the thread that called
    double lost_s = 0;      // all threads together; less than nothing where other threads of the process count, too
  };

  explicit ContentionGuard(int threads);

  // For the next pass: 1 <= threads() <= what it was made with.
  int threads() const { return candidates_[current_]; }
  // threads() is as chosen, not only being timed.
  bool settled() const { return !surveying_; }
  void Passed(const Pass& pass);

 private:
  // Passes of one number of rows with one number of threads.
  struct Timed {
    int passes = 0;
    double seconds = 0;
    double pass_s() const { return seconds / passes; }
  };

  void Watch(const Pass& pass, int row_class);
  void Time(const Pass& pass, int row_class);
  bool Slower(double seconds, double times, std::size_t candidates) const;
  void TryNext();
  void Choose();
  void GiveUp();
  void Rest(std::size_t candidate);
  void Forget();

  std::vector<int> candidates_;  // falling; the first is all
  std::vector<Timed> timed_;     // of each
  std::size_t current_ = 0;      // candidate that computes
  int row_class_ = 0;            // of the passes in timed_
  bool surveying_ = false;
  // Settled: what was counted in this window, and how long no survey begins.
  double window_s_ = 0, own_lost_s_ = 0, lost_s_ = 0, rest_s_ = 0;
  int fruitless_ = 0;
  // In a survey.
  std::size_t chosen_ = 0;   // before it
  bool contended_ = false;   // that is why it began
  bool first_pass_ = false;  // of this candidate: its threads wake up
  int row_changes_ = 0;
  double survey_s_ = 0;
};

}  // namespace shoal
