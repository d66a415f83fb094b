// The W channel in ROOT's RDataFrame, typed and compiled once: selection, bin and weights as functions of columns, and
// dense tensor fills: each event adds every element of its two weight tensors to the cell it falls into.
// OTHERS: elements that, with those of the efficiencies, make as many as our full list of templates has.

#include <ROOT/RDF/RActionImpl.hxx>
#include <ROOT/RDataFrame.hxx>
#include <ROOT/RVec.hxx>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace bench {

using ROOT::RVecB;
using ROOT::RVecF;
using ROOT::RVecI;

constexpr int kEta = 48, kPt = 30, kCells = kEta * kPt * 2 * 3 * 2;
constexpr int kStored = 61 + 21 + 5;  // weights in the file: densities, masses, widths
constexpr int kLookedUp = 230;        // weights of a table in the boson's rapidity and momentum, used again if there are more
constexpr int kPerCharge = 4 + 3 + 4 + 12, kIso = 12, kOwn = 2 * kPerCharge + kIso;
constexpr int kEfficiency = kEta * kOwn;  // 2784: coefficients of five steps, the last of them without charge

template <int N>
using Others = std::array<double, N>;
using Efficiency = std::array<double, kEfficiency>;

struct Muon {
  float pt = 0, eta = 0, phi = 0, iso = 0;
  int charge = 0;  // 0: the event is not selected
};

inline double deltaR2(double eta1, double phi1, double eta2, double phi2) {
  double dphi = phi1 - phi2;
  if (dphi > M_PI) dphi -= 2 * M_PI;
  if (dphi < -M_PI) dphi += 2 * M_PI;
  return (eta1 - eta2) * (eta1 - eta2) + dphi * dphi;
}

inline Muon onlyVetoMuon(const RVecF& pt, const RVecF& eta, const RVecF& phi, const RVecI& charge, const RVecF& dxy,
                         const RVecF& iso, const RVecB& loose, const RVecB& medium, const RVecB& global,
                         const RVecB& purity, const RVecF& sapt, const RVecF& saeta, const RVecF& saphi,
                         const RVecI& hits) {
  int found = -1;
  for (size_t m = 0; m < pt.size(); ++m) {
    if (!(loose[m] && global[m] && purity[m] && std::abs(dxy[m]) < 0.05f && pt[m] > 15 && std::abs(eta[m]) < 2.4f))
      continue;
    if (!(sapt[m] > 15 && hits[m] >= 1 && deltaR2(saeta[m], saphi[m], eta[m], phi[m]) < 0.09)) continue;
    if (found >= 0) return {};
    found = m;
  }
  if (found < 0 || !medium[found] || !(pt[found] > 26 && pt[found] < 56)) return {};
  return {pt[found], eta[found], phi[found], iso[found], charge[found]};
}

inline bool noElectron(const RVecF& pt, const RVecF& eta, const RVecF& dxy, const RVecF& dz, const RVecI& cut) {
  for (size_t e = 0; e < pt.size(); ++e)
    if (pt[e] > 10 && std::abs(eta[e]) < 2.4f && cut[e] >= 1 && std::abs(dxy[e]) < 0.05f && std::abs(dz[e]) < 0.2f)
      return false;
  return true;
}

inline bool triggered(const Muon& muon, const RVecF& eta, const RVecF& phi, const RVecI& id, const RVecI& bits) {
  for (size_t t = 0; t < eta.size(); ++t)
    if (id[t] == 13 && (bits[t] & 48) && deltaR2(eta[t], phi[t], muon.eta, muon.phi) < 0.09) return true;
  return false;
}

inline bool generated(const Muon& muon, const RVecF& eta, const RVecF& phi, const RVecI& pdg, const RVecI& status,
                      const RVecI& flags) {
  for (size_t g = 0; g < eta.size(); ++g)
    if (std::abs(pdg[g]) == 13 && status[g] == 1 && (flags[g] & 33) &&
        deltaR2(eta[g], phi[g], muon.eta, muon.phi) < 0.09)
      return true;
  return false;
}

struct Boson {
  double mass = 0, rapidity = 0, pt = 0;
};

inline Boson boson(const RVecF& pt, const RVecF& eta, const RVecF& phi, const RVecF& mass, const RVecI& pdg,
                   const RVecI& flags) {
  double px = 0, py = 0, pz = 0, energy = 0;
  int leptons = 0;
  for (size_t g = 0; g < pt.size() && leptons < 2; ++g) {
    int id = std::abs(pdg[g]);
    if (id < 11 || id > 16 || !(flags[g] & 128)) continue;
    double x = pt[g] * std::cos(phi[g]), y = pt[g] * std::sin(phi[g]), z = pt[g] * std::sinh(eta[g]);
    px += x, py += y, pz += z, energy += std::sqrt(x * x + y * y + z * z + mass[g] * mass[g]);
    ++leptons;
  }
  double pt2 = px * px + py * py, m2 = energy * energy - pt2 - pz * pz;
  if (leptons < 2 || m2 <= 0) return {};
  return {std::sqrt(m2), std::abs(0.5 * std::log((energy + pz) / (energy - pz))), std::sqrt(pt2)};
}

inline int etaBin(double eta) { return std::min(kEta - 1, int((eta + 2.4) / 4.8 * kEta)); }

inline int cell(const Muon& muon, float met, float metphi) {
  double mt = std::sqrt(2 * muon.pt * met * (1 - std::cos(muon.phi - metphi)));
  int bin = etaBin(muon.eta) * kPt + std::min(kPt - 1, int(muon.pt - 26));
  bin = (bin * 2 + (muon.charge > 0)) * 3 + (mt < 20 ? 0 : mt < 40 ? 1 : 2);
  return bin * 2 + (muon.iso < 0.15f ? 0 : 1);
}

struct Tables {  // what would be read from correction files: smooth numbers
  std::vector<double> coefficients, theory;
  Tables() : coefficients(kEta * 2 * (kPerCharge + kIso)), theory(20 * 100 * kLookedUp) {
    for (size_t i = 0; i < coefficients.size(); ++i) coefficients[i] = 1e-3 * std::sin(i);
    for (size_t i = 0; i < theory.size(); ++i) theory[i] = 1 + 0.05 * std::sin(i);
  }
};

template <int N>
inline Others<N> othersTensor(double weight, const Boson& v, const RVecF& pdf, const RVecF& mass, const RVecF& width,
                              const Tables& tables) {
  static_assert(N > kStored, "the tensor begins with the weights of the file");
  Others<N> t;
  int j = 0;
  for (int i = 0; i < 61; ++i) t[j++] = weight * pdf[i] / pdf[0];
  for (int i = 0; i < 21; ++i) t[j++] = weight * mass[i];
  for (int i = 0; i < 5; ++i) t[j++] = weight * width[i];
  const double* row = &tables.theory[(std::min(19, int(v.rapidity * 4)) * 100 + std::min(99, int(v.pt))) * kLookedUp];
  while (j < N)
    for (int i = 0; i < kLookedUp && j < N; ++i) t[j++] = weight * row[i];
  return t;
}

inline Efficiency efficiencyTensor(double weight, const Muon& muon, const Tables& tables) {
  Efficiency t;
  t.fill(weight);  // a muon elsewhere changes nothing, yet is an element
  int eta = etaBin(muon.eta), charge = muon.charge > 0;
  double x = 2 * (muon.pt - 26) / 30. - 1, power = 1;
  const double* c = &tables.coefficients[(eta * 2 + charge) * (kPerCharge + kIso)];
  double* own = &t[(eta * 2 + charge) * kPerCharge];
  for (int i = 0; i < kPerCharge; ++i, power = i % 4 ? power * x : 1) own[i] *= 1 + c[i] * power;
  double* iso = &t[kEta * 2 * kPerCharge + eta * kIso];
  for (int i = 0; i < kIso; ++i, power = i % 4 ? power * x : 1) iso[i] *= 1 + c[kPerCharge + i] * power;
  return t;
}

template <typename Tensor>
class Fill : public ROOT::Detail::RDF::RActionImpl<Fill<Tensor>> {
 public:
  using Result_t = std::vector<double>;
  Fill() {  // one set of sums for all runs: what is timed is the filling, not the first touch of new memory
    static const auto kept = std::make_shared<Result_t>(size_t(kCells) * std::tuple_size<Tensor>::value);
    sums_ = kept;
  }
  Fill(Fill&&) = default;
  std::shared_ptr<Result_t> GetResultPtr() const { return sums_; }
  void Initialize() {}
  void InitTask(TTreeReader*, unsigned int) {}
  void Exec(unsigned int, int cell, const Tensor& tensor) {
    double* sums = sums_->data() + size_t(cell) * tensor.size();
    for (size_t i = 0; i < tensor.size(); ++i) sums[i] += tensor[i];
  }
  void Finalize() {}
  std::string GetActionName() { return "Fill"; }

 private:
  std::shared_ptr<Result_t> sums_;
};

// Returns the number of selected events. Tensors: "none" (nominal only), "some" (317 other elements), "dense" (these and
// 2784 of the efficiencies) or "equal" (as many as our templates).
inline double run(const std::string& path, int events, const std::string& tensors) {
  static const Tables tables;
  ROOT::RDataFrame frame("Events", path);
  auto chosen =
      frame.Range(0, events)
          .Filter([](bool a, bool b) { return a || b; }, {"HLT_IsoTkMu24", "HLT_IsoMu24"})
          .Filter([](bool a, bool b, bool c, bool d, bool e, bool f) { return a && b && c && d && e && f; },
                  {"Flag_globalSuperTightHalo2016Filter", "Flag_EcalDeadCellTriggerPrimitiveFilter",
                   "Flag_goodVertices", "Flag_HBHENoiseIsoFilter", "Flag_HBHENoiseFilter", "Flag_BadPFMuonFilter"})
          .Define("muon", onlyVetoMuon,
                  {"Muon_pt", "Muon_eta", "Muon_phi", "Muon_charge", "Muon_dxybs", "Muon_vtxAgnPfRelIso04_all",
                   "Muon_looseId", "Muon_mediumId", "Muon_isGlobal", "Muon_highPurity", "Muon_standalonePt",
                   "Muon_standaloneEta", "Muon_standalonePhi", "Muon_standaloneNumberOfValidHits"})
          .Filter([](const Muon& muon) { return muon.charge != 0; }, {"muon"})
          .Filter(noElectron, {"Electron_pt", "Electron_eta", "Electron_dxy", "Electron_dz", "Electron_cutBased"})
          .Filter(triggered, {"muon", "TrigObj_eta", "TrigObj_phi", "TrigObj_id", "TrigObj_filterBits"})
          .Filter(generated, {"muon", "GenPart_eta", "GenPart_phi", "GenPart_pdgId", "GenPart_status",
                              "GenPart_statusFlags"})
          .Define("cell", cell, {"muon", "DeepMETPVRobust_pt", "DeepMETPVRobust_phi"})
          .Define("weight", [](float gen, const RVecF& pdf) { return std::copysign(double(pdf[0]), gen); },
                  {"genWeight", "LHEPdfWeight"})
          .Define("nominal", [](double weight) { return std::array<double, 2>{weight, weight * weight}; }, {"weight"})
          .Define("boson", boson,
                  {"GenPart_pt", "GenPart_eta", "GenPart_phi", "GenPart_mass", "GenPart_pdgId", "GenPart_statusFlags"})
          .Define("efficiency",
                  [](double weight, const Muon& muon) { return efficiencyTensor(weight, muon, tables); },
                  {"weight", "muon"});
  auto count = chosen.Count();
  auto nominal = chosen.Book<int, std::array<double, 2>>(Fill<std::array<double, 2>>(), {"cell", "nominal"});
  auto fillOthers = [&](auto size) {
    constexpr int N = decltype(size)::value;
    auto tensor = [](double weight, const Boson& v, const RVecF& pdf, const RVecF& mass, const RVecF& width) {
      return othersTensor<N>(weight, v, pdf, mass, width, tables);
    };
    return chosen
        .Define("others", tensor, {"weight", "boson", "LHEPdfWeight", "MEParamWeight", "MEParamWeightAltSet1"})
        .template Book<int, Others<N>>(Fill<Others<N>>(), {"cell", "others"});
  };
  ROOT::RDF::RResultPtr<std::vector<double>> others, efficiency;
  if (tensors == "equal")
    others = fillOthers(std::integral_constant<int, OTHERS>{});
  else if (tensors != "none")
    others = fillOthers(std::integral_constant<int, 317>{});
  if (tensors == "equal" || tensors == "dense")
    efficiency = chosen.Book<int, Efficiency>(Fill<Efficiency>(), {"cell", "efficiency"});
  return double(*count);
}

}  // namespace bench
