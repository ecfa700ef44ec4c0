// The forms of the law by the names that the command line uses.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "scaling/fit/form.h"

namespace tessera {

// chinchilla, coupled, kaplan, gadre, muennighoff. Throws UsageError for another name, with the names that there are.
std::unique_ptr<Form> make_form(std::string_view name);
std::vector<std::string> form_names();

}  // namespace tessera
