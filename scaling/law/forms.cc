#include "scaling/law/forms.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "scaling/law/chinchilla.h"
#include "scaling/law/coupled.h"
#include "scaling/law/gadre.h"
#include "scaling/law/kaplan.h"
#include "scaling/law/muennighoff.h"
#include "tensor/check.h"

namespace tessera {

std::vector<std::string> form_names() { return {"chinchilla", "coupled", "kaplan", "gadre", "muennighoff"}; }

std::unique_ptr<Form> make_form(std::string_view name) {
  if (name == "chinchilla") return std::make_unique<Chinchilla>();
  if (name == "coupled") return std::make_unique<Coupled>();
  if (name == "kaplan") return std::make_unique<Kaplan>();
  if (name == "gadre") return std::make_unique<Gadre>();
  if (name == "muennighoff") return std::make_unique<Muennighoff>();
  throw UsageError(fmt::format("form {}: not one of {}", name, fmt::join(form_names(), ", ")));
}

}  // namespace tessera
