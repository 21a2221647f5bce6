// Shell completions, made from the program's own commands and options so that they cannot drift.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "apps/cli/commands.h"
#include "apps/cli/exit_code.h"

namespace shoal::cli {
namespace {

struct Command {
  std::string name, description;
  std::vector<std::string> options;
};

std::vector<Command> Commands(const CLI::App& app) {
  std::vector<Command> commands;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    Command& command = commands.emplace_back(Command{sub->get_name(), sub->get_description(), {}});
    for (const CLI::Option* option : sub->get_options()) {
      for (const std::string& name : option->get_lnames()) command.options.push_back("--" + name);
    }
  }
  return commands;
}

std::string Join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string Bash(const std::vector<Command>& commands) {
  std::string names, cases;
  for (const Command& c : commands) {
    names += (names.empty() ? "" : " ") + c.name;
    cases += "    " + c.name + ") words='" + Join(c.options) + "' ;;\n";
  }
  return "_shoal() {\n  local cur=${COMP_WORDS[COMP_CWORD]} words=''\n"
         "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n    COMPREPLY=($(compgen -W '" +
         names +
         "' -- \"$cur\"))\n    return\n  fi\n"
         "  case ${COMP_WORDS[1]} in\n" +
         cases +
         "  esac\n"
         "  case $cur in\n    -*) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n"
         "    *) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n  esac\n}\ncomplete -o filenames -F _shoal shoal\n";
}

// Between single quotes; `quote` is how the shell has one there.
std::string Quoted(const std::string& text, const char* quote) {
  std::string quoted = "'";
  for (const char c : text) c == '\'' ? quoted += quote : quoted += c;
  return quoted + "'";
}

std::string Zsh(const std::vector<Command>& commands) {
  std::string names, cases;
  for (const Command& c : commands) {
    names += "    " + Quoted(c.name + ":" + c.description, "'\\''") + "\n";
    cases += "    " + c.name + ") compadd -- " + Join(c.options) + " ;;\n";
  }
  return "#compdef shoal\n_shoal() {\n  local -a commands=(\n" + names +
         "  )\n"
         "  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n"
         "  if [[ $words[CURRENT] != -* ]]; then\n    _files\n    return\n  fi\n  case $words[2] in\n" +
         cases + "  esac\n}\ncompdef _shoal shoal\n";
}

std::string Fish(const std::vector<Command>& commands) {
  std::string text;
  for (const Command& c : commands) {
    text += "complete -c shoal -n __fish_use_subcommand -a " + c.name + " -d " + Quoted(c.description, "\\'") + "\n";
    for (const std::string& option : c.options) {
      text += "complete -c shoal -n '__fish_seen_subcommand_from " + c.name + "' -l " + option.substr(2) + "\n";
    }
  }
  return text;
}

}  // namespace

int RunCompletions(const CLI::App& app, const std::string& shell) {
  const std::vector<Command> commands = Commands(app);
  const std::string script = shell == "bash" ? Bash(commands) : shell == "zsh" ? Zsh(commands) : Fish(commands);
  std::fputs(script.c_str(), stdout);
  return kExitOk;
}

}  // namespace shoal::cli
