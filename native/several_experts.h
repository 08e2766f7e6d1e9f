// Several distinct experts for every datapoint, and the residual graph on the experts, as in one_expert.h.
//
// An edge p -> j can be gone by the datapoints that are at p and not at j. So a move from p to j touches the edges out
// of the other experts q of the datapoint as well: it may no longer go q -> j, and may now go q -> p.
//
// With m experts each, an expert has m times as many datapoints, and a look at all of them for the cheapest one of an
// edge would be most of the time. But at some prices, the anchor, let the margin of a datapoint at expert p be what p
// is ahead of the best expert that it is not at. Then no edge out of p costs it less than the difference of the two
// prices and the margin: in the order of their margins, the first few tell which is the cheapest. That holds for those
// who have not moved since the anchor was set; the others are looked at one by one, and when they are many, it is set
// anew.
//
// Where that does not help, as with rows that are alike in groups, a look at all serves for several moves: it leaves a
// list of the cheapest of an edge, and everybody below a limit is in the list.

#ifndef GUMBEL_MOE_SEVERAL_EXPERTS_H_
#define GUMBEL_MOE_SEVERAL_EXPERTS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "one_expert.h"

namespace gumbel_moe {

template <typename Score>
class SeveralExperts {
 public:
  // `scores` (n, k) without NaN or +inf, at least `each` finite scores in every row, at least one row; `each` <= k.
  SeveralExperts(const Score* scores, int64_t n, int64_t k, int64_t each)
      : scores_(scores),
        n_(n),
        k_(k),
        each_(each),
        words_((k + 63) / 64),
        experts_(n * each),
        held_(n * words_),
        load_(k),
        members_(k),
        sorted_(k),
        strays_(k),
        strayed_(n),
        anchor_(k),
        costs_(k * k, kInfinity),
        movers_(k * k),
        limits_(k * k, -kInfinity),
        list_of_(k * k, -1),
        shifted_(k),
        top_(each) {}

  int64_t each() const { return each_; }
  const Score* Row(int64_t i) const { return scores_ + i * k_; }
  int64_t Load(int64_t j) const { return load_[j]; }
  const double* Costs(int64_t p) const { return &costs_[p * k_]; }
  int64_t Mover(int64_t p, int64_t j) const { return movers_[p * k_ + j]; }

  // Takes the best experts of a datapoint at the prices from the room; of tied ones, those with the most room.
  void TakeBest(int64_t i, const std::vector<double>& prices, std::vector<double>& room) {
    SelectBest(i, prices, room);
    for (const auto& [value, expert] : top_) room[expert] -= 1;
  }

  void Place(const std::vector<double>& prices, std::vector<double> room) {
    for (int64_t i = 0; i < n_; ++i) {
      TakeBest(i, prices, room);
      for (int64_t slot = 0; slot < each_; ++slot) {
        const int64_t expert = top_[slot].second;
        experts_[i * each_ + slot] = static_cast<int32_t>(expert);
        Hold(i, expert);
        ++load_[expert];
      }
    }
    Anchor(prices);
    for (int64_t p = 0; p < k_; ++p) {
      const std::vector<Member>& members = members_[p];
      for (int64_t at = 0; at < sorted_[p]; ++at) Offer(members[at].datapoint, p);
      if (sorted_[p] == Load(p)) continue;
      for (int64_t j = 0; j < k_; ++j) {
        if (j != p && costs_[p * k_ + j] > Bound(p, j, members[sorted_[p] - 1])) Renew(p, j);
      }
    }
  }

  void Move(int64_t i, int64_t p, int64_t j) {
    int32_t* own = &experts_[i * each_];
    if (!strayed_[i]) {
      strayed_[i] = 1;
      for (int64_t slot = 0; slot < each_; ++slot) strays_[own[slot]].push_back(i);
    }
    std::vector<int64_t>& left = strays_[p];
    *std::find(left.begin(), left.end(), i) = left.back();
    left.pop_back();
    strays_[j].push_back(i);
    *std::find(own, own + each_, static_cast<int32_t>(p)) = static_cast<int32_t>(j);
    Release(i, p);
    Hold(i, j);
    --load_[p];
    ++load_[j];
    ++moves_;

    for (int64_t l = 0; l < k_; ++l) {
      if (Goes(i, p, l)) Renew(p, l);
    }
    const Score* row = Row(i);
    for (int64_t slot = 0; slot < each_; ++slot) {
      const int64_t q = own[slot];
      if (q == j) continue;
      if (Goes(i, q, j)) Renew(q, j);
      const double cost = static_cast<double>(row[q]) - row[p];
      if (cost < limits_[q * k_ + p]) lists_[list_of_[q * k_ + p]].push_back({cost, i});
      if (cost < costs_[q * k_ + p]) {
        costs_[q * k_ + p] = cost;
        movers_[q * k_ + p] = i;
      }
    }
    Offer(i, j);
  }

  void Refresh(const std::vector<double>& prices) {
    // About where looks at those who have moved take as long as the pass over the scores that a new anchor takes.
    if (moves_ * moves_ > kRenewed * k_ * k_ * (n_ / each_ + 1)) Anchor(prices);
  }

  double Regret(const std::vector<double>& prices) {
    double regret = 0;
    for (int64_t i = 0; i < n_; ++i) {
      const Score* row = Row(i);
      int32_t* own = &experts_[i * each_];
      const int64_t first =
          *std::max_element(own, own + each_, [row](int64_t a, int64_t b) { return row[a] < row[b]; });
      // Scores less scores and prices less prices: large prices, if alike, leave small differences of scores alone.
      double* shifted = shifted_.data();
      for (int64_t j = 0; j < k_; ++j) {
        shifted[j] = (static_cast<double>(row[j]) - row[first]) - (prices[j] - prices[first]);
      }
      held_values_.clear();
      for (int64_t slot = 0; slot < each_; ++slot) {
        held_values_.push_back(shifted[own[slot]]);
        shifted[own[slot]] = -kInfinity;
      }
      double other = -kInfinity;
#pragma omp simd reduction(max : other)
      for (int64_t j = 0; j < k_; ++j) other = shifted[j] > other ? shifted[j] : other;
      if (!(other > *std::min_element(held_values_.begin(), held_values_.end()))) continue;
      // The worst of its experts for the best of the others, and so on while that is a gain.
      for (int64_t slot = 0; slot < each_; ++slot) {
        const auto worst = std::min_element(held_values_.begin(), held_values_.end());
        const int64_t best = std::max_element(shifted, shifted + k_) - shifted;
        const double gain = shifted[best] - *worst;
        if (!(gain > 0)) break;
        regret += gain;
        *worst = kInfinity;
        shifted[best] = -kInfinity;
      }
    }
    return regret;
  }

  double Total() const {
    double total = 0;
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t slot = 0; slot < each_; ++slot) total += Row(i)[experts_[i * each_ + slot]];
    }
    return total;
  }

  // Ascending for every datapoint.
  void Write(int32_t* assignment) const {
    std::copy(experts_.begin(), experts_.end(), assignment);
    for (int64_t i = 0; i < n_; ++i) std::sort(assignment + i * each_, assignment + (i + 1) * each_);
  }

 private:
  static constexpr int64_t kRenewed = 2;
  static constexpr int64_t kSorted = 4;  // members per expert of the problem whose margins are put in order

  static constexpr int64_t kListed = 16;  // the cheapest of an edge that a look at all leaves

  struct Member {
    double key;  // margin, or cost
    int64_t datapoint;
  };
  static constexpr auto ByKey = [](const Member& a, const Member& b) { return a.key < b.key; };

  bool Holds(int64_t i, int64_t j) const { return held_[i * words_ + j / 64] >> (j % 64) & 1; }
  void Hold(int64_t i, int64_t j) { held_[i * words_ + j / 64] |= uint64_t{1} << (j % 64); }
  void Release(int64_t i, int64_t j) { held_[i * words_ + j / 64] &= ~(uint64_t{1} << (j % 64)); }
  bool Goes(int64_t i, int64_t p, int64_t j) const {
    return costs_[p * k_ + j] < kInfinity && movers_[p * k_ + j] == i;
  }

  // The best experts at the prices, best first, into `top_`; they are distinct whatever the numbers.
  void SelectBest(int64_t i, const std::vector<double>& prices, const std::vector<double>& room) {
    const Score* row = Row(i);
    const double* price = prices.data();
    double* shifted = shifted_.data();
    for (int64_t j = 0; j < k_; ++j) shifted[j] = row[j] - price[j];
    int64_t found = 0;
    double least = -kInfinity;  // that has to be beaten
    for (int64_t j = 0; j < k_; ++j) {
      const double value = shifted[j];
      if (!(value >= least) || value == -kInfinity) continue;
      int64_t rank = found;
      while (rank > 0 && (top_[rank - 1].first < value ||
                          (top_[rank - 1].first == value && room[top_[rank - 1].second] < room[j]))) {
        --rank;
      }
      if (rank == each_) continue;
      found = std::min(found + 1, each_);
      std::move_backward(top_.begin() + rank, top_.begin() + found - 1, top_.begin() + found);
      top_[rank] = {value, j};
      if (found == each_) least = top_[each_ - 1].first;
    }
    // Fewer only where sums have overflowed.
    for (int64_t j = 0; found < each_; ++j) {
      const auto same = [j](const std::pair<double, int64_t>& one) { return one.second == j; };
      if (std::none_of(top_.begin(), top_.begin() + found, same)) top_[found++] = {-kInfinity, j};
    }
  }

  // Orders the members of every expert by their margins at the prices.
  void Anchor(const std::vector<double>& prices) {
    anchor_ = prices;
    moves_ = 0;
    std::fill(strayed_.begin(), strayed_.end(), 0);
    for (int64_t p = 0; p < k_; ++p) {
      strays_[p].clear();
      members_[p].clear();
      members_[p].reserve(load_[p]);
    }
    held_values_.resize(each_);
    for (int64_t i = 0; i < n_; ++i) {
      const Score* row = Row(i);
      const int32_t* own = &experts_[i * each_];
      const double* price = prices.data();
      double* shifted = shifted_.data();
      for (int64_t j = 0; j < k_; ++j) shifted[j] = row[j] - price[j];
      for (int64_t slot = 0; slot < each_; ++slot) {
        held_values_[slot] = shifted[own[slot]];
        shifted[own[slot]] = -kInfinity;
      }
      double best = -kInfinity;
#pragma omp simd reduction(max : best)
      for (int64_t j = 0; j < k_; ++j) best = shifted[j] > best ? shifted[j] : best;
      for (int64_t slot = 0; slot < each_; ++slot) {
        const double margin = held_values_[slot] - best;
        members_[own[slot]].push_back({margin > -kInfinity ? margin : -kInfinity, i});  // a NaN has no order
      }
    }
    for (int64_t p = 0; p < k_; ++p) {
      std::vector<Member>& members = members_[p];
      sorted_[p] = std::min<int64_t>(kSorted * k_, members.size());
      std::partial_sort(members.begin(), members.begin() + sorted_[p], members.end(), ByKey);
    }
  }

  // No edge from p to j costs a member less, nor one whose margin is larger.
  double Bound(int64_t p, int64_t j, const Member& member) const { return (anchor_[p] - anchor_[j]) + member.key; }

  // A datapoint at expert p for all edges from there.
  void Offer(int64_t i, int64_t p) {
    const Score* row = Row(i);
    const double own = row[p];
    double* offered = shifted_.data();
    for (int64_t j = 0; j < k_; ++j) offered[j] = own - row[j];
    for (int64_t slot = 0; slot < each_; ++slot) offered[experts_[i * each_ + slot]] = kInfinity;
    double* costs = &costs_[p * k_];
    int64_t* movers = &movers_[p * k_];
    const double* limits = &limits_[p * k_];
    bool listed = false;
    for (int64_t j = 0; j < k_; ++j) {
      const bool less = offered[j] < costs[j];
      costs[j] = less ? offered[j] : costs[j];
      movers[j] = less ? i : movers[j];
      listed |= offered[j] < limits[j];
    }
    for (int64_t j = 0; listed && j < k_; ++j) {
      if (offered[j] < limits[j]) lists_[list_of_[p * k_ + j]].push_back({offered[j], i});
    }
  }

  // Looks for the cheapest datapoint from expert p to expert j.
  void Renew(int64_t p, int64_t j) {
    const int64_t edge = p * k_ + j;
    if (list_of_[edge] < 0) {
      list_of_[edge] = static_cast<int32_t>(lists_.size());
      lists_.emplace_back();
    }
    std::vector<Member>& list = lists_[list_of_[edge]];
    const auto gone = [&](const Member& one) { return !Holds(one.datapoint, p) || Holds(one.datapoint, j); };
    list.erase(std::remove_if(list.begin(), list.end(), gone), list.end());
    if (list.empty() && limits_[edge] < kInfinity) Fill(p, j, list);
    if (static_cast<int64_t>(list.size()) > 4 * kListed) {
      std::nth_element(list.begin(), list.begin() + kListed, list.end(), ByKey);
      limits_[edge] = list[kListed].key;
      list.resize(kListed);
    }
    const auto least = std::min_element(list.begin(), list.end(), ByKey);
    costs_[edge] = list.empty() ? kInfinity : least->key;
    movers_[edge] = list.empty() ? -1 : least->datapoint;
  }

  // The cheapest datapoints from expert p to expert j into their list, which is empty.
  void Fill(int64_t p, int64_t j, std::vector<Member>& list) {
    double limit = kInfinity;  // where the list is full, the largest cost in it
    const auto consider = [&](int64_t i) {
      if (Holds(i, j)) return;
      const double cost = static_cast<double>(Row(i)[p]) - Row(i)[j];
      if (!(cost < limit)) return;
      list.push_back({cost, i});
      std::push_heap(list.begin(), list.end(), ByKey);
      if (static_cast<int64_t>(list.size()) > kListed) {
        std::pop_heap(list.begin(), list.end(), ByKey);
        list.pop_back();
      }
      if (static_cast<int64_t>(list.size()) == kListed) limit = list.front().key;
    };
    for (const int64_t i : strays_[p]) consider(i);
    const std::vector<Member>& members = members_[p];
    const int64_t size = static_cast<int64_t>(members.size());
    double bound = -kInfinity;  // for those not yet looked at; behind those in order, that of the last of them
    int64_t at = 0;
    for (; at < sorted_[p] && bound < limit; ++at) {
      bound = Bound(p, j, members[at]);
      if (!strayed_[members[at].datapoint]) consider(members[at].datapoint);
    }
    if (at < size && bound < limit) {
      const auto seen = std::partition(list.begin(), list.end(), [&](const Member& one) { return one.key < bound; });
      if (seen != list.begin()) {
        limit = bound;
        list.erase(seen, list.end());
      } else {
        for (; at < size; ++at) {
          if (!strayed_[members[at].datapoint]) consider(members[at].datapoint);
        }
      }
    }
    limits_[p * k_ + j] = limit;
  }

  const Score* scores_;
  const int64_t n_, k_, each_, words_;
  std::vector<int32_t> experts_;  // (n, each)
  std::vector<uint64_t> held_;    // (n, words): a bit for every expert
  std::vector<int64_t> load_;
  std::vector<std::vector<Member>> members_;  // when the anchor was set; the first `sorted_` by their margins
  std::vector<int64_t> sorted_;
  std::vector<std::vector<int64_t>> strays_;  // now at the expert, and not in order, as they have moved since
  std::vector<uint8_t> strayed_;              // (n)
  std::vector<double> anchor_;
  std::vector<double> costs_;
  std::vector<int64_t> movers_;
  std::vector<double> limits_;    // (k, k): who goes for less is in the list of the edge
  std::vector<int32_t> list_of_;  // (k, k), -1: none yet
  std::vector<std::vector<Member>> lists_;
  std::vector<double> shifted_;
  std::vector<double> held_values_;
  std::vector<std::pair<double, int64_t>> top_;
  int64_t moves_ = 0;
};

}  // namespace gumbel_moe

#endif  // GUMBEL_MOE_SEVERAL_EXPERTS_H_
